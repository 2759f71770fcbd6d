import pytest
import torch
from detectron2.layers import paste_masks_in_image

from hybrid_cascade.modeling.mnc import mask_voting

from .voting_by_loops import assert_same, cat, clustered, instance, voting_by_loops

either = pytest.mark.parametrize("binary", [False, True])


@either
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"nms_iou": 0.6, "merge_iou": 0.3, "mask_threshold": 0.55},
        {"merge_iou": 0.9, "topk": 3},
        {"nms_iou": 1.0, "topk": 50},
    ],
)
def test_votes_as_plain_loops_do(seed, settings, binary):
    case = clustered(seed=seed)
    settings = {**settings, "binarize_before_voting": binary}
    assert_same(mask_voting(*case, **settings), voting_by_loops(*case, **settings))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@either
@pytest.mark.parametrize("seed", range(3))
def test_votes_on_a_gpu_as_plain_loops_do(seed, binary):
    boxes, masks, scores, image_size = clustered(seed=seed)
    settings = {"binarize_before_voting": binary}
    instances = mask_voting(boxes.cuda(), masks.cuda(), scores.cuda(), image_size, **settings)
    assert all(field.device.type == "cuda" for field in instances.get_fields().values())
    assert_same(instances.to("cpu"), voting_by_loops(boxes, masks, scores, image_size, **settings))


@either
def test_votes_alike_in_an_image_of_many_tiles(binary):
    boxes, masks, scores, _ = clustered(8)
    case = boxes * 2, masks, scores, (68, 90)
    settings = {"binarize_before_voting": binary}
    assert_same(mask_voting(*case, **settings), voting_by_loops(*case, **settings))


def test_probabilities_are_averaged_before_they_are_compared_with_the_threshold():
    """Left half: 0.9 and 0.1, on average 0.5. Right half: 0.39 and 0.45, on average 0.42."""
    boxes, masks = cat(*[instance([0, 0, 4, 4]) for _ in range(2)])
    masks[0, :, :2], masks[1, :, :2] = 0.9, 0.1
    masks[0, :, 2:], masks[1, :, 2:] = 0.39, 0.45
    case = boxes, masks, torch.full((2, 1), 0.5), (4, 4)

    def columns(mask_threshold, **settings):
        found = mask_voting(*case, mask_threshold=mask_threshold, **settings)
        return [row.any(dim=0).tolist() for row in found.pred_masks]

    assert columns(0.41) == [[True] * 4]
    assert columns(0.45) == [[True] * 2 + [False] * 2]
    assert columns(0.55) == []
    binary = {"binarize_before_voting": True}  # each half has one of two votes
    assert columns(0.41, **binary) == columns(0.45, **binary) == [[True] * 4]
    assert columns(0.5, **binary) == [[True] * 2 + [False] * 2]
    assert columns(0.55, **binary) == []


def test_masks_fade_across_the_border_of_a_tile():
    # A tenth of a cell of 16 pixels beyond the box the value falls from 0.5 to 0.4.
    case = *instance([0, 0, 64, 64]), torch.tensor([[0.5]]), (70, 90)
    result = mask_voting(*case)
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 66, 66]]
    assert_same(result, voting_by_loops(*case))


def test_one_class_and_one_instance():
    case = clustered(classes=1, seed=4)
    assert_same(mask_voting(*case), voting_by_loops(*case))
    case = clustered(instances=1, classes=1, seed=4)
    assert_same(mask_voting(*case), voting_by_loops(*case))


def test_a_majority_by_score_decides_pixel_by_pixel():
    """Three instances of one box: 0.3 for the left half, 0.3 the upper half, 0.4 all but a cell."""
    boxes, masks = cat(*[instance([2, 1, 6, 5], 0.0) for _ in range(3)])
    masks[0, :, :2] = 1
    masks[1, :2, :] = 1
    masks[2] = 1
    masks[2, 0, 3] = 0
    scores = torch.tensor([[0.15], [0.15], [0.2]])
    image = [
        "          ",
        "  ####    ",
        "  ####    ",
        "  ####    ",
        "  ####    ",
        "          ",
    ]
    expected = torch.tensor([[pixel == "#" for pixel in row] for row in image])

    at_04 = mask_voting(boxes, masks, scores, (6, 10), mask_threshold=0.39)
    expected[1, 5] = False  # 0.3 of the upper half
    assert torch.equal(at_04.pred_masks, expected[None])
    assert at_04.pred_boxes.tensor.tolist() == [[2, 1, 6, 5]]
    assert at_04.scores.tolist() == pytest.approx([0.2])

    at_06 = mask_voting(boxes, masks, scores, (6, 10), mask_threshold=0.65)
    expected[3:5, 4:6] = False  # 0.4 of the quarter below on the right
    assert torch.equal(at_06.pred_masks, expected[None])

    at_08 = mask_voting(boxes, masks, scores, (6, 10), mask_threshold=0.75)
    expected[:] = False
    expected[1:3, 2:4] = True
    assert torch.equal(at_08.pred_masks, expected[None])
    assert at_08.pred_boxes.tensor.tolist() == [[2, 1, 4, 3]]


def test_weights_are_the_scores_of_the_survivors_class():
    boxes, masks = cat(instance([0, 0, 4, 4]), instance([0, 0, 4, 4], 0.0))
    masks[1, :, :2] = 1
    scores = torch.tensor([[0.5, 0.01], [0.1, 0.7]])
    result = mask_voting(boxes, masks, scores, (4, 8))
    assert result.pred_classes.tolist() == [1, 0]
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 2, 4], [0, 0, 4, 4]]


def test_instances_vote_from_the_merging_iou_on_whatever_their_scores():
    # IoU with the first: 0.5 (exact), and 4 / 9.
    boxes, masks = cat(instance([0, 0, 4, 4]), instance([0, 0, 8, 4]), instance([0, 0, 9, 4]))
    scores = torch.tensor([[0.5], [0.4], [0.4]])
    binary = {"binarize_before_voting": True}  # the masks' values fade at the rim
    result = mask_voting(boxes, masks, scores, (4, 12), score_thresh=0.45, **binary)
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 8, 4]]
    result = mask_voting(boxes, masks, scores, (4, 12), merge_iou=0.51, **binary)
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 4, 4]]


def test_nms_suppresses_above_its_iou_only():
    boxes, masks = cat(instance([0, 0, 4, 4]), instance([0, 0, 8, 4]))
    scores = torch.tensor([[0.6], [0.5]])
    assert len(mask_voting(boxes, masks, scores, (4, 12), nms_iou=0.5)) == 2
    assert len(mask_voting(boxes, masks, scores, (4, 12), nms_iou=0.49)) == 1


def test_values_at_the_threshold_are_set():
    boxes, masks = instance([0, 0, 4, 4], 0.4)
    masks[0, 0, 0] = torch.nextafter(torch.tensor(0.4), torch.tensor(0.0))
    result = mask_voting(boxes, masks, torch.tensor([[1.0]]), (4, 4), mask_threshold=0.4)
    assert result.pred_masks.sum() == 15 and not result.pred_masks[0, 0, 0]
    # And votes at the threshold: two of four instances.
    boxes, masks = cat(*[instance([0, 0, 4, 4], value) for value in (1.0, 1.0, 0.0, 0.0)])
    scores = torch.full((4, 1), 0.25)
    assert len(mask_voting(boxes, masks, scores, (4, 4), mask_threshold=0.5)) == 1
    assert len(mask_voting(boxes, masks, scores, (4, 4), mask_threshold=0.51)) == 0


def test_equal_scores_are_ordered_by_instance_then_class():
    boxes = [[10.0 * k, 0, 10.0 * k + 8, 8] for k in range(20)]
    boxes, masks = cat(*[instance(box) for box in boxes])
    result = mask_voting(boxes, masks, torch.full((20, 2), 0.5), (8, 200), topk=31)
    assert result.pred_classes.tolist() == [0, 1] * 15 + [0]
    assert result.pred_boxes.tensor[:, 0].tolist() == [10.0 * (k // 2) for k in range(31)]
    # Of equal instances in one place the first survives.
    boxes, masks = cat(instance([0, 0, 8, 8]), instance([0, 0, 4, 8]))
    result = mask_voting(boxes, masks, torch.full((2, 1), 0.5), (8, 8), merge_iou=1.0)
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 8, 8]]


def test_topk_keeps_the_best_over_all_classes():
    case = clustered(60, classes=5)
    everything = mask_voting(*case)
    assert len(everything) > 7
    best = mask_voting(*case, topk=7)
    assert_same(best, voting_by_loops(*case)[:7])
    assert len(mask_voting(*case, topk=0)) == 0


def test_score_thresh_removes_the_survivors_below_it_only():
    case = clustered(60, classes=5)
    everything = mask_voting(*case)
    threshold = everything.scores[len(everything) // 2].item()
    result = mask_voting(*case, score_thresh=threshold)
    expected = everything[everything.scores > threshold]
    assert 0 < len(result) == len(expected) < len(everything)
    assert torch.equal(result.pred_masks, expected.pred_masks)
    assert torch.equal(result.pred_classes, expected.pred_classes)


@pytest.mark.parametrize("image_size", [(20, 70), (90, 45), (1, 1)])
def test_masks_have_the_size_of_the_image_and_end_there(image_size):
    boxes, masks, scores, _ = clustered()
    result = mask_voting(boxes, masks, scores, image_size)
    assert result.image_size == image_size
    assert result.pred_masks.shape[1:] == image_size
    larger = mask_voting(boxes, masks, scores, (100, 100))
    cut = larger.pred_masks[:, : image_size[0], : image_size[1]]
    assert torch.equal(result.pred_masks, cut[cut.any(dim=2).any(dim=1)])


def test_a_lone_instance_has_the_mask_that_detectron2_pastes():
    boxes, masks = instance([3.2, 4.7, 61.4, 48.3], cells=21)
    masks = torch.rand_like(masks)
    # On the CPU Detectron2 cuts off what is outside the box; zeros at the rim leave nothing there.
    masks[:, [0, -1], :] = 0
    masks[:, :, [0, -1]] = 0
    result = mask_voting(boxes, masks, torch.tensor([[0.5]]), (60, 80))
    assert torch.equal(result.pred_masks, paste_masks_in_image(masks, boxes, (60, 80), 0.4))
