"""The rules of VOC's average precision: hits and misses, order, crowds, recalls."""

import math

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes

from hybrid_cascade.evaluation import VOCRegionEvaluator

from .scenes import SIZE, random_scenes, rectangle
from .voc_region_reference import MEASURES, check_against_brute_force


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_equals_a_brute_force_computation_on_random_detections(make, seed, crowds):
    scenes = random_scenes(make, seed, crowds)
    results = scenes.evaluate()
    check_against_brute_force(scenes, results)
    assert 0 < results["voc_region"]["AP70"] < results["voc_region"]["AP50"] < 100
    assert math.isnan(results["voc_region"]["AP50-owl"])  # has detections, but no instance
    check_against_brute_force(scenes, scenes.evaluate(year=2007), year=2007)


def test_ground_truth_as_detections_scores_100(make):
    scenes = make([[(0, rectangle(2, 2, 9, 9), False)], [(1, rectangle(0, 0, 32, 24), False)]])
    for image, instances in enumerate(scenes.truth):
        for label, mask, _ in instances:
            scenes.find(image, label, mask, 0.9)
    results = scenes.evaluate()
    for measure in MEASURES:
        assert results[measure]["AP50"] == results[measure]["AP50-cat"] == pytest.approx(100)
    assert results["voc_region"]["AP70"] == pytest.approx(100)


def test_ap_is_the_mean_of_the_precisions_at_eleven_recalls(make):
    # 3 of 10 are found, with a miss before the third: precision 1 up to recall 0.2, 3/4 at 0.3.
    truth = [[(0, rectangle(2, 2, 9, 9), False)] for _ in range(10)]
    scenes = make(truth)
    for image, score in ((0, 0.9), (1, 0.8), (2, 0.6)):
        scenes.find(image, 0, truth[image][0][1], score)
    scenes.find(4, 0, rectangle(20, 15, 30, 20), 0.7)
    for year in (2007, 2012):
        result = scenes.evaluate(year=year)["voc_region"]["AP50-cat"]
        assert result == pytest.approx(100 * (3 * 1 + 1 * 0.75) / 11)


@pytest.mark.parametrize(
    "years, of_boxes",  # the argument, the metadata
    [
        ((None, None), "area"),
        ((2012, None), "area"),
        ((2010, None), "area"),
        ((2009, None), "eleven"),
        ((2007, None), "eleven"),
        ((None, 2007), "eleven"),
        ((2012, 2007), "area"),
        ((2007, 2012), "eleven"),
    ],
)
def test_ap_of_boxes_is_the_area_under_the_curve_from_2010_on(make, years, of_boxes):
    # 3 of 4 are found, after a miss: precisions 1/2, 2/3, 3/4, so that the highest is 3/4.
    # Then a miss and the last: 4/6.
    truth = [[(0, rectangle(2, 2, 9, 9), False)] for _ in range(5)]
    scenes = make(truth)
    scenes.find(4, 0, rectangle(20, 15, 30, 20), 0.95)
    for image, score in ((0, 0.9), (1, 0.8), (2, 0.7), (3, 0.5)):
        scenes.find(image, 0, truth[image][0][1], score)
    scenes.find(3, 0, rectangle(20, 15, 30, 20), 0.6)
    area = 100 * (3 * (1 / 5) * (3 / 4) + (1 / 5) * (4 / 6))
    eleven = 100 * (7 * (3 / 4) + 2 * (4 / 6)) / 11  # recalls 0 to 0.6, 0.7 and 0.8
    argument, metadata = years
    if metadata is not None:
        MetadataCatalog.get(scenes.name).year = metadata
    results = scenes.evaluate(year=argument)
    expected = {"area": area, "eleven": eleven}[of_boxes]
    assert results["voc_box"]["AP50"] == pytest.approx(expected)
    assert results["voc_mask_box"]["AP50"] == pytest.approx(expected)
    assert results["voc_region"]["AP50"] == pytest.approx(eleven)


def test_an_overlap_equal_to_the_threshold_is_a_hit(make):
    scenes = make([[(0, rectangle(0, 0, 10, 10), False)]])
    scenes.find(0, 0, rectangle(0, 0, 10, 5), 0.9)
    results = scenes.evaluate()
    assert results["voc_region"]["AP50"] == results["voc_mask_box"]["AP50"] == pytest.approx(100)
    assert results["voc_region"]["AP70"] == 0


def test_a_second_detection_of_an_instance_is_a_miss(make):
    mask, other = rectangle(2, 2, 9, 9), rectangle(20, 10, 30, 20)
    scenes = make([[(0, mask, False), (0, other, False)]])
    for hit, score in ((mask, 0.9), (mask, 0.8), (other, 0.7)):
        scenes.find(0, 0, hit, score)
    # Precision 1 up to recall 0.5, then 2 of 3.
    assert scenes.evaluate()["voc_region"]["AP50"] == pytest.approx(100 * (6 + 5 * 2 / 3) / 11)


def test_a_duplicate_does_not_take_the_next_best_instance(make):
    # Both detections overlap the first instance most; the second would be a hit on the other.
    scenes = make([[(0, rectangle(0, 0, 10, 10), False), (0, rectangle(0, 2, 10, 12), False)]])
    scenes.find(0, 0, rectangle(0, 0, 10, 10), 0.9)
    scenes.find(0, 0, rectangle(0, 0, 10, 11), 0.8)
    assert scenes.evaluate()["voc_region"]["AP50"] == pytest.approx(100 * 6 / 11)


def test_equal_scores_are_taken_in_the_order_of_images_and_outputs(make):
    truth = [[(0, rectangle(2, 2, 9, 9), False)] for _ in range(2)]
    good, bad = truth[0][0][1], rectangle(20, 15, 30, 20)
    precisions = []
    for first, second in ((good, bad), (bad, good)):
        scenes = make(truth)
        scenes.find(0, 0, first, 0.5)
        scenes.find(0, 0, second, 0.5)
        precisions.append(scenes.evaluate()["voc_region"]["AP50"])
        # The second image may be processed first, by another process or a shuffled loader.
        scenes.find(1, 0, good, 0.5)
        in_order, reversed_ = scenes.evaluate(), scenes.evaluate(images=[1, 0])
        check_against_brute_force(scenes, in_order)
        check_against_brute_force(scenes, reversed_)
    assert precisions == pytest.approx([100 * 6 / 11, 100 * 6 / 11 / 2])


def test_crowds_need_not_be_found_and_misses_inside_them_do_not_count(make):
    crowd, mask = rectangle(0, 0, 20, 24), rectangle(22, 2, 30, 12)
    scenes = make([[(0, crowd, True), (0, mask, False)]])
    scenes.find(0, 0, rectangle(3, 3, 9, 9), 0.9)  # in the crowd, a small part of it
    scenes.find(0, 0, mask, 0.8)
    assert scenes.evaluate()["voc_region"]["AP50"] == pytest.approx(100)
    scenes.find(0, 0, rectangle(18, 3, 28, 9), 0.95)  # mostly outside
    assert scenes.evaluate()["voc_region"]["AP50"] == pytest.approx(50)


def test_a_detection_hits_its_instance_and_not_the_crowd_around_it(make):
    mask = rectangle(2, 2, 10, 10)
    scenes = make([[(0, rectangle(0, 0, 20, 24), True), (0, mask, False)]])
    scenes.find(0, 0, rectangle(2, 2, 10, 9), 0.9)
    assert scenes.evaluate()["voc_region"]["AP50"] == pytest.approx(100)


def test_an_empty_mask_is_a_miss(make):
    scenes = make([[(0, rectangle(2, 2, 9, 9), False)]])
    scenes.find(0, 0, np.zeros(SIZE, bool), 0.9)
    scenes.find(0, 0, rectangle(2, 2, 9, 9), 0.8)
    results = scenes.evaluate()
    check_against_brute_force(scenes, results)
    assert results["voc_region"]["AP50"] == results["voc_mask_box"]["AP50"] == pytest.approx(50)


def test_predicted_boxes_are_measured_apart_from_the_boxes_of_masks(make):
    mask = rectangle(2, 2, 9, 9)
    scenes = make([[(0, mask, False)]])
    scenes.find(0, 0, mask, 0.9)
    inputs, outputs = scenes.outputs(0)
    outputs[0]["instances"].pred_boxes = Boxes(torch.tensor([[20.0, 10.0, 30.0, 20.0]]))
    evaluator = VOCRegionEvaluator(scenes.name)
    evaluator.process(inputs, outputs)
    results = evaluator.evaluate()
    assert results["voc_box"]["AP50"] == 0 and results["voc_mask_box"]["AP50"] == pytest.approx(100)


def test_without_detections_all_classes_with_ground_truth_are_at_0(make):
    scenes = make([[(0, rectangle(2, 2, 9, 9), False)], []])
    results = scenes.evaluate()
    check_against_brute_force(scenes, results)
    for measure in MEASURES:
        assert results[measure]["AP50"] == results[measure]["AP50-cat"] == 0
        assert math.isnan(results[measure]["AP50-dog"])


def test_without_ground_truth_everything_is_nan(make):
    scenes = make([[], [(1, rectangle(2, 2, 9, 9), True)]])
    scenes.find(0, 0, rectangle(2, 2, 9, 9), 0.9)
    results = scenes.evaluate()
    check_against_brute_force(scenes, results)
    assert all(math.isnan(value) for values in results.values() for value in values.values())


def test_instances_of_images_that_were_not_processed_count_as_missed(make):
    truth = [[(0, rectangle(2, 2, 9, 9), False)] for _ in range(2)]
    scenes = make(truth)
    scenes.find(0, 0, truth[0][0][1], 0.9)
    assert scenes.evaluate(images=[0])["voc_region"]["AP50"] == pytest.approx(100 * 6 / 11)
