import json
import math
import multiprocessing

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from PIL import Image

from hybrid_cascade.data import register_coco_json
from hybrid_cascade.evaluation import VOCRegionEvaluator

SIZE = (24, 32)
CLASSES = ["cat", "dog", "owl"]
MEASURES = ("voc_region", "voc_box", "voc_mask_box")


def rectangle(x1, y1, x2, y2):
    mask = np.zeros(SIZE, bool)
    mask[y1:y2, x1:x2] = True
    return mask


def tight_box(mask):
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return [0, 0, 0, 0]
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


class Scenes:
    """A registered data set of masks, and detections on it.

    truth: for each image, instances (class, mask, is crowd).
    found: for each image, detections (class, mask, score, box).
    """

    def __init__(self, folder, truth):
        self.truth = truth
        self.found = [[] for _ in truth]
        # Ids in another order than the images have in the data set after it was loaded.
        self.ids = [100 + (7 * index) % len(truth) for index in range(len(truth))]
        annotations = []
        for image_id, instances in zip(self.ids, truth, strict=True):
            for label, mask, is_crowd in instances:
                region = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
                region["counts"] = region["counts"].decode()
                x1, y1, x2, y2 = map(int, tight_box(mask))
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": label + 1,
                        "segmentation": region,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": int(mask.sum()),
                        "iscrowd": int(is_crowd),
                    }
                )
        content = {
            "images": [
                {"id": i, "file_name": "a.png", "height": SIZE[0], "width": SIZE[1]}
                for i in self.ids
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)],
            "annotations": annotations,
        }
        (folder / "truth.json").write_text(json.dumps(content))
        Image.new("RGB", SIZE[::-1]).save(folder / "a.png")
        self.name = f"scenes {len(DatasetCatalog.list())} of {folder}"
        register_coco_json(self.name, str(folder / "truth.json"), str(folder))

    def find(self, image, label, mask, score, box=None):
        box = tight_box(mask) if box is None else box
        self.found[image].append((label, mask, score, [float(x) for x in box]))

    def outputs(self, image):
        found = self.found[image]
        masks = np.stack([mask for _, mask, _, _ in found]) if found else np.zeros((0, *SIZE), bool)
        instances = Instances(SIZE)
        instances.pred_boxes = Boxes(torch.tensor([box for *_, box in found]).reshape(-1, 4))
        instances.scores = torch.tensor([score for _, _, score, _ in found])
        instances.pred_classes = torch.tensor([label for label, *_ in found], dtype=torch.long)
        instances.pred_masks = torch.from_numpy(masks)
        return [{"image_id": self.ids[image]}], [{"instances": instances}]

    def evaluate(self, images=None, **options):
        evaluator = VOCRegionEvaluator(self.name, **options)
        evaluator.reset()
        for image in range(len(self.truth)) if images is None else images:
            evaluator.process(*self.outputs(image))
        return evaluator.evaluate()


@pytest.fixture
def make(tmp_path, request):
    def make_scenes(truth):
        scenes = Scenes(tmp_path, truth)
        request.addfinalizer(lambda: DatasetCatalog.remove(scenes.name))
        request.addfinalizer(lambda: MetadataCatalog.remove(scenes.name))
        return scenes

    return make_scenes


# The measure once more, pixel by pixel and with plain loops.


def region_overlap(mask, other, of_crowd):
    both = np.logical_and(mask, other).sum()
    either = mask.sum() if of_crowd else np.logical_or(mask, other).sum()
    return both / either if either else 0.0


def box_overlap(box, other, of_crowd):
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    area, other_area = ((b[2] - b[0]) * (b[3] - b[1]) for b in (box, other))
    both = width * height
    return both / (area if of_crowd else area + other_area - both)


def brute_force(scenes, label, measure, threshold):
    order = sorted(range(len(scenes.ids)), key=lambda image: scenes.ids[image])
    detections = []
    for place, image in enumerate(order):
        for index, (found_label, mask, score, box) in enumerate(scenes.found[image]):
            if found_label == label:
                detections.append((-score, place, index, image, mask, box))
    detections.sort(key=lambda d: d[:3])
    number = sum(t == label and not crowd for image in scenes.truth for t, _, crowd in image)
    if number == 0:
        return math.nan
    used, hits, misses, curve = [], 0, 0, []
    for _, _, _, image, mask, box in detections:
        best, best_overlap, excused = None, 0.0, False
        for index, (true_label, true_mask, crowd) in enumerate(scenes.truth[image]):
            if true_label != label:
                continue
            if measure == "voc_region":
                overlap = region_overlap(mask, true_mask, crowd)
            else:
                mine = box if measure == "voc_box" else tight_box(mask)
                overlap = box_overlap(mine, tight_box(true_mask), crowd)
            if crowd:
                excused = excused or overlap >= threshold
            elif overlap > best_overlap:
                best, best_overlap = (image, index), overlap
        if best is not None and best_overlap >= threshold and best not in used:
            used.append(best)
            hits += 1
        elif excused:
            continue
        else:
            misses += 1
        curve.append((hits, hits / (hits + misses)))
    total = 0.0
    for step in range(11):
        total += max([precision for h, precision in curve if 10 * h >= step * number], default=0.0)
    return 100 * total / 11


def check_against_brute_force(scenes, results):
    assert set(results) == set(MEASURES)
    for measure in MEASURES:
        thresholds = {"AP50": 0.5, "AP70": 0.7} if measure == "voc_region" else {"AP50": 0.5}
        names = [f"{metric}-{name}" for metric in thresholds for name in CLASSES]
        assert set(results[measure]) == {*thresholds, *names}
        for metric, threshold in thresholds.items():
            expected = [brute_force(scenes, i, measure, threshold) for i in range(len(CLASSES))]
            got = [results[measure][f"{metric}-{name}"] for name in CLASSES]
            assert got == pytest.approx(expected, nan_ok=True, abs=1e-9)
            known = [ap for ap in expected if not math.isnan(ap)]
            mean = sum(known) / len(known) if known else math.nan
            assert results[measure][metric] == pytest.approx(mean, nan_ok=True, abs=1e-9)


def random_scenes(make, seed, crowds=False):
    """Detections near instances, some twice, some of another class, some of nothing, with ties."""
    random = np.random.default_rng(seed)

    def blob():
        x, y = random.integers(0, 22), random.integers(0, 14)
        mask = rectangle(x, y, x + random.integers(4, 11), y + random.integers(4, 11))
        return mask & (random.random(SIZE) < 0.95)

    def near(mask):
        shifted = np.roll(mask, random.integers(0, 2, size=2), axis=(0, 1))
        return shifted ^ (random.random(SIZE) < 0.01)

    truth = [
        [
            (int(random.integers(0, 2)), blob(), crowds and random.random() < 0.3)
            for _ in range(random.integers(0, 5))
        ]
        for _ in range(8)
    ]
    scenes = make(truth)
    for image, instances in enumerate(truth):
        for label, mask, _ in instances:
            for _ in range(random.integers(0, 4)):
                label = label if random.random() < 0.8 else int(random.integers(0, 3))
                found = near(mask)
                box = np.array(tight_box(mask)) + random.integers(-2, 3, size=4)
                scenes.find(image, label, found, float(np.float32(random.integers(1, 6) / 5)), box)
        if random.random() < 0.5:
            scenes.find(image, int(random.integers(0, 3)), blob(), 0.5)
    return scenes


@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_equals_a_brute_force_computation_on_random_detections(make, seed, crowds):
    scenes = random_scenes(make, seed, crowds)
    results = scenes.evaluate()
    check_against_brute_force(scenes, results)
    assert 0 < results["voc_region"]["AP70"] < results["voc_region"]["AP50"] < 100
    assert math.isnan(results["voc_region"]["AP50-owl"])  # has detections, but no instance


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
    # 3 of 10 found, with a miss before the third: precision 1 up to recall 0.2, then 3/4 at 0.3.
    truth = [[(0, rectangle(2, 2, 9, 9), False)] for _ in range(10)]
    scenes = make(truth)
    for image, score in ((0, 0.9), (1, 0.8), (2, 0.6)):
        scenes.find(image, 0, truth[image][0][1], score)
    scenes.find(4, 0, rectangle(20, 15, 30, 20), 0.7)
    result = scenes.evaluate()["voc_region"]["AP50-cat"]
    assert result == pytest.approx(100 * (3 * 1 + 1 * 0.75) / 11)


def test_an_overlap_of_just_the_threshold_is_a_hit(make):
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
        # Also if another process, or a shuffled loader, was faster with the second image.
        scenes.find(1, 0, good, 0.5)
        in_order, reversed_ = scenes.evaluate(), scenes.evaluate(images=[1, 0])
        check_against_brute_force(scenes, in_order)
        check_against_brute_force(scenes, reversed_)
    assert precisions == pytest.approx([100 * 6 / 11, 100 * 6 / 11 / 2])


def test_crowds_are_not_to_be_found_and_excuse_misses_inside(make):
    crowd, mask = rectangle(0, 0, 20, 24), rectangle(22, 2, 30, 12)
    scenes = make([[(0, crowd, True), (0, mask, False)]])
    scenes.find(0, 0, rectangle(3, 3, 9, 9), 0.9)  # in the crowd, a small part of it
    scenes.find(0, 0, mask, 0.8)
    assert scenes.evaluate()["voc_region"]["AP50"] == pytest.approx(100)
    scenes.find(0, 0, rectangle(18, 3, 28, 9), 0.95)  # mostly outside
    assert scenes.evaluate()["voc_region"]["AP50"] == pytest.approx(50)


def test_an_instance_is_hit_rather_than_the_crowd_around_it(make):
    mask = rectangle(2, 2, 10, 10)
    scenes = make([[(0, rectangle(0, 0, 20, 24), True), (0, mask, False)]])
    scenes.find(0, 0, rectangle(2, 2, 10, 9), 0.9)
    assert scenes.evaluate()["voc_region"]["AP50"] == pytest.approx(100)


def test_polygons_are_ground_truth_too(make, tmp_path):
    scenes = make([[(0, rectangle(4, 4, 12, 14), False)]])
    content = json.loads((tmp_path / "truth.json").read_text())
    content["annotations"][0]["segmentation"] = [[4, 4, 12, 4, 12, 14, 4, 14]]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    scenes.find(0, 0, rectangle(4, 4, 12, 14), 0.9)
    assert scenes.evaluate()["voc_region"]["AP70"] == pytest.approx(100)


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


def test_images_that_were_not_processed_count_as_not_found(make):
    truth = [[(0, rectangle(2, 2, 9, 9), False)] for _ in range(2)]
    scenes = make(truth)
    scenes.find(0, 0, truth[0][0][1], 0.9)
    assert scenes.evaluate(images=[0])["voc_region"]["AP50"] == pytest.approx(100 * 6 / 11)


def test_an_empty_mask_is_a_miss(make):
    scenes = make([[(0, rectangle(2, 2, 9, 9), False)]])
    scenes.find(0, 0, np.zeros(SIZE, bool), 0.9)
    scenes.find(0, 0, rectangle(2, 2, 9, 9), 0.8)
    results = scenes.evaluate()
    check_against_brute_force(scenes, results)
    assert results["voc_region"]["AP50"] == results["voc_mask_box"]["AP50"] == pytest.approx(50)


def test_boxes_are_measured_apart_from_those_of_masks(make):
    mask = rectangle(2, 2, 9, 9)
    scenes = make([[(0, mask, False)]])
    scenes.find(0, 0, mask, 0.9)
    inputs, outputs = scenes.outputs(0)
    outputs[0]["instances"].pred_boxes = Boxes(torch.tensor([[20.0, 10.0, 30.0, 20.0]]))
    evaluator = VOCRegionEvaluator(scenes.name)
    evaluator.process(inputs, outputs)
    results = evaluator.evaluate()
    assert results["voc_box"]["AP50"] == 0 and results["voc_mask_box"]["AP50"] == pytest.approx(100)


def test_reset_forgets_the_detections(make):
    mask = rectangle(2, 2, 9, 9)
    scenes = make([[(0, mask, False)]])
    scenes.find(0, 0, mask, 0.9)
    evaluator = VOCRegionEvaluator(scenes.name)
    evaluator.process(*scenes.outputs(0))
    evaluator.reset()
    assert evaluator.evaluate()["voc_region"]["AP50"] == 0


def test_a_model_without_masks_gets_the_measure_of_boxes_alone(make):
    mask = rectangle(2, 2, 9, 9)
    scenes = make([[(0, mask, False)]])
    scenes.find(0, 0, mask, 0.9)
    inputs, outputs = scenes.outputs(0)
    outputs[0]["instances"].remove("pred_masks")
    evaluator = VOCRegionEvaluator(scenes.name)
    evaluator.process(inputs, outputs)
    results = evaluator.evaluate()
    assert list(results) == ["voc_box"] and results["voc_box"]["AP50"] == 100


def test_masks_of_another_size_are_an_error_that_names_the_image(make):
    scenes = make([[]])
    scenes.find(0, 0, rectangle(2, 2, 9, 9), 0.9)
    inputs, outputs = scenes.outputs(0)
    instances = outputs[0]["instances"]
    instances.pred_masks = instances.pred_masks[:, :20]
    with pytest.raises(ValueError, match=r"Image 100 .*\(20, 32\).*\(24, 32\)"):
        VOCRegionEvaluator(scenes.name).process(inputs, outputs)


def test_ground_truth_without_masks_is_an_error_that_names_the_image(make, tmp_path):
    scenes = make([[(0, rectangle(2, 2, 9, 9), False)]])
    content = json.loads((tmp_path / "truth.json").read_text())
    del content["annotations"][0]["segmentation"]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="a.png' .*without `segmentation`"):
        VOCRegionEvaluator(scenes.name)


def _evaluate_share(scenes, rank, file, results, **options):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=2
    )
    comm.create_local_process_group(2)
    results.put((rank, scenes.evaluate(images=range(rank, len(scenes.truth), 2), **options)))
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_result_of_one_and_only_on_the_main_one(make, tmp_path):
    scenes = random_scenes(make, seed=1)
    alone = scenes.evaluate()
    context = multiprocessing.get_context("fork")  # has the data set registered, imports nothing
    results = context.SimpleQueue()
    arguments = [(scenes, rank, tmp_path / "meeting", results) for rank in range(2)]
    processes = [context.Process(target=_evaluate_share, args=a) for a in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0]
    by_rank = dict(results.get() for _ in processes)
    assert by_rank[1] == {}
    for measure in MEASURES:
        assert by_rank[0][measure] == pytest.approx(alone[measure], nan_ok=True, abs=0)
