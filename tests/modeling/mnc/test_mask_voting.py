import math

import pytest
import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Instances

from hybrid_cascade.modeling.mnc import mask_voting


def intersection_over_union(a, b):
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def bilinear(mask, y, x):
    """The value at (y, x), where cell (i, j) is at (i + 0.5, j + 0.5), with zeros around."""
    y, x = y - 0.5, x - 0.5
    value = 0.0
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < len(mask) and 0 <= j < len(mask):
                value += (1 - abs(y - i)) * (1 - abs(x - j)) * mask[i][j]
    return value


def paste(mask, box, image_size, threshold):
    """The set of pixels (y, x) of an instance."""
    x1, y1, x2, y2 = box
    cells = len(mask)
    return {
        (y, x)
        for y in range(image_size[0])
        for x in range(image_size[1])
        if bilinear(mask, (y + 0.5 - y1) / (y2 - y1) * cells, (x + 0.5 - x1) / (x2 - x1) * cells)
        >= threshold
    }


def voting_by_loops(
    boxes, masks, scores, image_size, nms_iou=0.3, merge_iou=0.5, mask_threshold=0.4, topk=100
):
    """(score, class, pixels) of each detection, in double precision."""
    boxes, masks, scores = (x.double().tolist() for x in (boxes, masks, scores))
    pasted = [paste(m, b, image_size, mask_threshold) for m, b in zip(masks, boxes, strict=True)]
    survivors = []
    for label in range(len(scores[0])):
        kept = []
        for i in sorted(range(len(boxes)), key=lambda i: -scores[i][label]):
            if all(intersection_over_union(boxes[i], boxes[k]) <= nms_iou for k in kept):
                kept.append(i)
        survivors += [(scores[i][label], label, i) for i in kept]
    detections = []
    for score, label, i in sorted(survivors, key=lambda s: (-s[0], s[2], s[1]))[:topk]:
        near = [
            k for k, box in enumerate(boxes) if intersection_over_union(boxes[i], box) >= merge_iou
        ]
        total = sum(scores[k][label] for k in near)
        votes = {}
        for k in near:
            for pixel in pasted[k]:
                votes[pixel] = votes.get(pixel, 0) + scores[k][label] / total
        pixels = {pixel for pixel, value in votes.items() if value >= mask_threshold}
        if pixels:
            detections.append((score, label, pixels))
    return detections


def assert_same(instances, detections):
    assert len(instances) == len(detections) > 0
    for index, (score, label, pixels) in enumerate(detections):
        assert instances.scores[index].item() == pytest.approx(score, rel=1e-6)
        assert instances.pred_classes[index] == label
        assert set(map(tuple, instances.pred_masks[index].nonzero().tolist())) == pixels
        y, x = zip(*pixels, strict=True)
        tight = [min(x), min(y), max(x) + 1, max(y) + 1]
        assert instances.pred_boxes.tensor[index].tolist() == tight


def clustered(instances=30, classes=3, cells=7, image_size=(34, 45), seed=0):
    """Boxes around three objects, some beyond the image, with smooth masks and peaked scores."""
    generator = torch.Generator().manual_seed(seed)
    objects = torch.tensor([[2.0, 3, 24, 30], [10, 8, 40, 22], [25, 12, 47, 36]])
    chosen = torch.randint(3, (instances,), generator=generator)
    boxes = objects[chosen] + 3 * torch.randn(instances, 4, generator=generator)
    masks = torch.rand(instances, cells, cells, generator=generator)
    masks[:, 1:-1, 1:-1] = masks[:, 1:-1, 1:-1] * 0.6 + 0.3
    logits = 2 * torch.randn(instances, classes + 1, generator=generator)
    logits[torch.arange(instances), chosen % classes] += 3
    return boxes, masks, logits.softmax(dim=1)[:, :classes], image_size


def instance(box, value=1.0, cells=4):
    return torch.tensor([box], dtype=torch.float32), torch.full((1, cells, cells), value)


def cat(*pairs):
    return (torch.cat(tensors) for tensors in zip(*pairs, strict=True))


def empty_instances(size, classes):
    return torch.zeros(0, 4), torch.zeros(0, size, size), torch.zeros(0, classes)


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
def test_votes_as_the_paper_says(seed, settings):
    case = clustered(seed=seed)
    assert_same(mask_voting(*case, **settings), voting_by_loops(*case, **settings))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("seed", range(3))
def test_votes_on_a_gpu_as_the_paper_says(seed):
    boxes, masks, scores, image_size = clustered(seed=seed)
    instances = mask_voting(boxes.cuda(), masks.cuda(), scores.cuda(), image_size)
    assert all(field.device.type == "cuda" for field in instances.get_fields().values())
    assert_same(instances.to("cpu"), voting_by_loops(boxes, masks, scores, image_size))


def test_votes_alike_in_an_image_of_many_tiles():
    boxes, masks, scores, _ = clustered(8)
    case = boxes * 2, masks, scores, (68, 90)
    assert_same(mask_voting(*case), voting_by_loops(*case))


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
    result = mask_voting(boxes, masks, scores, (4, 12), score_threshold=0.45)
    assert result.pred_boxes.tensor.tolist() == [[0, 0, 8, 4]]
    result = mask_voting(boxes, masks, scores, (4, 12), merge_iou=0.51)
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


def test_score_threshold_removes_the_survivors_below_it_only():
    case = clustered(60, classes=5)
    everything = mask_voting(*case)
    threshold = everything.scores[len(everything) // 2].item()
    result = mask_voting(*case, score_threshold=threshold)
    expected = everything[everything.scores > threshold]
    assert 0 < len(result) == len(expected) < len(everything)
    assert torch.equal(result.pred_masks, expected.pred_masks)
    assert torch.equal(result.pred_classes, expected.pred_classes)


def test_no_instances_give_no_detections():
    result = mask_voting(*empty_instances(21, 20), (30, 40))
    assert isinstance(result, Instances) and len(result) == 0
    assert result.image_size == (30, 40)
    assert result.pred_boxes.tensor.shape == (0, 4)
    assert result.scores.shape == (0,)
    assert result.pred_classes.shape == (0,) and result.pred_classes.dtype == torch.int64
    assert result.pred_masks.shape == (0, 30, 40) and result.pred_masks.dtype == torch.bool


def test_scores_of_zero_give_no_detections():
    boxes, masks, scores, size = clustered()
    assert len(mask_voting(boxes, masks, scores * 0, size)) == 0
    scores[:, 1] = 0
    result = mask_voting(boxes, masks, scores, size)
    assert 1 not in result.pred_classes and len(result) > 0


def test_empty_masks_give_no_detections():
    boxes, masks, scores, size = clustered()
    assert len(mask_voting(boxes, masks * 0, scores, size)) == 0


def test_boxes_without_area_take_no_part():
    boxes, masks, scores, size = clustered()
    bad = torch.tensor([[5, 5, 5, 20], [5, 5, 20, 5], [20, 20, 5, 5], [20, 5, 5, 20], [7, 7, 7, 7]])
    more = (
        torch.cat([bad, boxes]),
        torch.cat([torch.ones(5, 7, 7), masks]),
        torch.cat([torch.full((5, 3), 0.9), scores]),
        size,
    )
    for settings in ({}, {"topk": 3}, {"merge_iou": 0.0}):
        expected = mask_voting(boxes, masks, scores, size, **settings)
        result = mask_voting(*more, **settings)
        assert torch.equal(result.pred_masks, expected.pred_masks)
        assert torch.equal(result.scores, expected.scores)
    assert len(mask_voting(bad, torch.ones(5, 7, 7), torch.ones(5, 3), size)) == 0


def test_boxes_outside_the_image_are_dropped_after_topk():
    boxes, masks = cat(
        instance([-20, -20, -5, -5]), instance([100, 5, 120, 20]), instance([-4, 2, 4, 10])
    )
    scores = torch.tensor([[0.9], [0.8], [0.7]])
    result = mask_voting(boxes, masks, scores, (20, 20))
    assert result.pred_boxes.tensor.tolist() == [[0, 2, 4, 10]]
    assert len(mask_voting(boxes, masks, scores, (20, 20), topk=2)) == 0


def test_classes_do_not_suppress_each_other_beyond_the_images_corner():
    """Where torchvision's shift of the boxes of class 1, by 11 here, lays one on the other."""
    boxes, masks = cat(instance([0, 0, 10, 10]), instance([-11, -11, 1, 1]))
    scores = torch.tensor([[0.8, 0.0], [0.0, 0.6]])
    assert mask_voting(boxes, masks, scores, (10, 12)).pred_classes.tolist() == [0, 1]


@pytest.mark.parametrize("image_size", [(20, 70), (90, 45), (1, 1)])
def test_masks_have_the_size_of_the_image_and_end_there(image_size):
    boxes, masks, scores, _ = clustered()
    result = mask_voting(boxes, masks, scores, image_size)
    assert result.image_size == image_size
    assert result.pred_masks.shape[1:] == image_size
    larger = mask_voting(boxes, masks, scores, (100, 100))
    cut = larger.pred_masks[:, : image_size[0], : image_size[1]]
    assert torch.equal(result.pred_masks, cut[cut.any(dim=2).any(dim=1)])


def test_half_precision_inputs_give_what_their_values_give():
    boxes, masks, scores, size = clustered()
    halves = boxes.half(), masks.half(), scores.half()
    result = mask_voting(*halves, size)
    assert result.scores.dtype == torch.float32
    assert_same(result, voting_by_loops(*halves, size))


def test_autocast_changes_nothing():
    case = clustered()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = mask_voting(*case)
    assert torch.equal(result.pred_masks, mask_voting(*case).pred_masks)


def test_inputs_stay_as_they_are_and_need_no_gradients():
    boxes, masks, scores, size = clustered()
    inputs = [x.clone().requires_grad_() for x in (boxes, masks, scores)]
    result = mask_voting(*inputs, size)
    assert not result.scores.requires_grad
    for x, y in zip(inputs, (boxes, masks, scores), strict=True):
        assert torch.equal(x, y)


def test_a_lone_instance_has_the_mask_that_detectron2_pastes():
    boxes, masks = instance([3.2, 4.7, 61.4, 48.3], cells=21)
    masks = torch.rand_like(masks)
    # On the CPU Detectron2 cuts off what is outside the box; zeros at the rim leave nothing there.
    masks[:, [0, -1], :] = 0
    masks[:, :, [0, -1]] = 0
    result = mask_voting(boxes, masks, torch.tensor([[0.5]]), (60, 80))
    assert torch.equal(result.pred_masks, paste_masks_in_image(masks, boxes, (60, 80), 0.4))


@pytest.mark.parametrize(
    "name, value",
    [
        ("boxes", torch.zeros(2, 5)),
        ("masks", torch.zeros(2, 7, 7, 1)),
        ("masks", torch.zeros(3, 7, 7)),
        ("masks", torch.zeros(2, 7, 8)),
        ("scores", torch.zeros(2)),
        ("scores", torch.zeros(3, 4)),
        ("merge_iou", 1.1),
        ("mask_threshold", 0.0),
        ("mask_threshold", 1.5),
        ("topk", -1),
        ("score_threshold", -0.1),
    ],
)
def test_wrong_shapes_and_values_are_named(name, value):
    arguments = {
        "boxes": torch.zeros(2, 4),
        "masks": torch.zeros(2, 7, 7),
        "scores": torch.zeros(2, 4),
        "image_size": (30, 40),
    }
    with pytest.raises(ValueError, match=rf"^{name}\b"):
        mask_voting(**{**arguments, name: value})
