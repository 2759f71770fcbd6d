import pytest
import torch
from detectron2.structures import Boxes, Instances

from hybrid_cascade.modeling import merge_instances_and_stuff

SIZE = (8, 10)


def detections(*regions, classes, scores):
    """Instances whose masks are rectangles (x1, y1, x2, y2)."""
    masks = torch.zeros(len(regions), *SIZE, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, regions, strict=True):
        mask[y1:y2, x1:x2] = True
    return Instances(
        SIZE,
        pred_boxes=Boxes(torch.tensor(regions, dtype=torch.float32).reshape(-1, 4)),
        pred_masks=masks,
        pred_classes=torch.tensor(classes, dtype=torch.long),
        scores=torch.tensor(scores),
    )


def merge(instances, sem_seg, stuff_labels=(0, 2), **thresholds):
    defaults = {"overlap_thresh": 0.5, "stuff_area_thresh": 1, "instances_score_thresh": 0.5}
    return merge_instances_and_stuff(instances, sem_seg, stuff_labels, **(defaults | thresholds))


def label_map():
    """Stuff 0 above, stuff 2 below, and of class 1, which is a thing, the right two columns."""
    labels = torch.zeros(SIZE, dtype=torch.long)
    labels[4:] = 2
    labels[:, 8:] = 1
    return labels


def test_of_overlapping_instances_the_higher_score_keeps_the_overlap():
    found = detections((0, 0, 4, 4), (2, 0, 6, 4), classes=[0, 3], scores=[0.6, 0.9])
    panoptic, segments = merge(found, label_map())
    assert panoptic.dtype == torch.int32
    expected = torch.zeros(SIZE, dtype=torch.int32)
    expected[:4], expected[4:], expected[:, 8:] = 3, 4, 0  # class 1 is no stuff, nothing is there
    expected[:4, 2:6] = 1
    expected[:4, :2] = 2
    assert torch.equal(panoptic, expected)
    # Category ids of stuff are the labels themselves, 0 too.
    found = [(s["id"], s["isthing"], s["category_id"]) for s in segments]
    assert found == [(1, True, 3), (2, True, 0), (3, False, 0), (4, False, 2)]
    assert [s.get("instance_id") for s in segments] == [1, 0, None, None]
    assert [s["area"] for s in segments[2:]] == [8, 32]


def test_what_is_hidden_too_much_or_not_sure_enough_is_left_out():
    found = detections(
        (0, 0, 4, 4), (0, 0, 5, 4), (6, 0, 8, 2), classes=[0, 1, 2], scores=[0.9, 0.8, 0.4]
    )
    _, segments = merge(found, label_map())
    assert [s["category_id"] for s in segments if s["isthing"]] == [0]
    _, segments = merge(found, label_map(), overlap_thresh=0.9, instances_score_thresh=0.3)
    assert [s["category_id"] for s in segments if s["isthing"]] == [0, 1, 2]


def test_small_stuff_is_left_out_and_its_pixels_have_no_segment():
    found = detections((0, 0, 8, 3), classes=[0], scores=[0.9])
    # 8 of the 32 pixels of stuff 0 are not hidden.
    panoptic, segments = merge(found, label_map(), stuff_area_thresh=9)
    assert [s["category_id"] for s in segments if not s["isthing"]] == [2]
    assert (panoptic[3] == 0).all()
    _, segments = merge(found, label_map(), stuff_area_thresh=8)
    assert [s["category_id"] for s in segments if not s["isthing"]] == [0, 2]


def test_stuff_that_instances_hide_altogether_is_no_segment():
    found = detections((0, 0, 8, 4), classes=[0], scores=[0.9])
    panoptic, segments = merge(found, label_map())
    assert [s["id"] for s in segments] == [1, 2] == panoptic.unique()[1:].tolist()
    assert segments[1]["category_id"] == 2


def test_without_instances_there_is_stuff_only():
    panoptic, segments = merge(detections(classes=[], scores=[]), label_map())
    assert [(s["isthing"], s["category_id"]) for s in segments] == [(False, 0), (False, 2)]
    assert torch.equal(panoptic > 0, label_map() != 1)


def test_without_stuff_in_the_image_there_are_instances_only():
    found = detections((0, 0, 4, 4), classes=[2], scores=[0.9])
    panoptic, segments = merge(found, torch.ones(SIZE, dtype=torch.long))
    assert [(s["isthing"], s["category_id"]) for s in segments] == [(True, 2)]
    assert torch.equal(panoptic == 1, found.pred_masks[0]) and panoptic.max() == 1


def test_neither_instances_nor_stuff_is_an_empty_map():
    panoptic, segments = merge(
        detections(classes=[], scores=[]), torch.ones(SIZE, dtype=torch.long)
    )
    assert segments == [] and panoptic.shape == SIZE and not panoptic.any()


@pytest.mark.parametrize("stuff_labels", [[2], [0, 1, 2]])
def test_only_the_given_labels_are_stuff(stuff_labels):
    _, segments = merge(detections(classes=[], scores=[]), label_map(), stuff_labels)
    assert [s["category_id"] for s in segments] == stuff_labels
