import math

import pytest
import torch
from detectron2.structures import Boxes, pairwise_iou

from hybrid_cascade.layers import soft_nms


def plain_loop(boxes, scores, classes, method, iou_thresh, sigma, score_thresh):
    """Figure 2 of the paper, box by box."""
    iou = pairwise_iou(Boxes(boxes), Boxes(boxes)).tolist()
    left = {i: s for i, s in enumerate(scores.tolist()) if s > score_thresh}
    kept = []
    while left:
        best = max(left, key=lambda i: left[i])
        kept.append((best, left.pop(best)))
        for i in list(left):
            if classes[i] != classes[best]:
                continue
            overlap = iou[best][i]
            if method == "gaussian":
                left[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap >= iou_thresh:
                left[i] *= 1 - overlap
            if left[i] <= score_thresh:
                del left[i]
    return sorted(kept, key=lambda x: -x[1])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("method", ["linear", "gaussian"])
@pytest.mark.parametrize("score_thresh", [0.0, 0.05])
def test_agrees_with_a_plain_loop(device, method, score_thresh):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    corner = torch.rand(150, 2) * 50
    boxes = torch.cat([corner, corner + 5 + torch.rand(150, 2) * 40], dim=1)
    scores, classes = torch.rand(150), torch.randint(0, 4, (150,))
    options = (method, 0.3, 0.4, score_thresh)
    expected = plain_loop(boxes, scores, classes, *options)
    found, decayed = soft_nms(*(x.to(device) for x in (boxes, scores, classes)), *options)
    assert found.tolist() == [i for i, _ in expected]
    torch.testing.assert_close(decayed.cpu(), torch.tensor([s for _, s in expected]))
    assert len(expected) > 0 and (score_thresh == 0 or len(expected) < 150)


# The second box has an IoU of 0.5 with the first, the third of 0.2 with the first and of 0 with
# the second, the fourth is the first of another class.
BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 8, 10, 10], [0, 0, 10, 10]])
SCORES = torch.tensor([0.9, 0.8, 0.7, 0.85])
CLASSES = torch.tensor([2, 2, 2, 0])


@pytest.mark.parametrize(
    "options, kept, decayed",
    [
        ({"method": "linear", "iou_thresh": 0.5}, [0, 3, 2, 1], [0.9, 0.85, 0.7, 0.4]),
        ({"method": "linear", "iou_thresh": 0.51}, [0, 3, 1, 2], [0.9, 0.85, 0.8, 0.7]),
        (
            {"method": "gaussian", "sigma": 0.5},
            [0, 3, 2, 1],
            [0.9, 0.85, 0.7 * math.exp(-0.08), 0.8 * math.exp(-0.5)],
        ),
        (
            {"method": "gaussian", "sigma": 0.5, "score_thresh": 0.5},
            [0, 3, 2],
            [0.9, 0.85, 0.7 * math.exp(-0.08)],
        ),
    ],
)
def test_boxes_drawn_by_hand(options, kept, decayed):
    found, scores = soft_nms(BOXES, SCORES, CLASSES, **options)
    assert found.tolist() == kept
    torch.testing.assert_close(scores, torch.tensor(decayed))


def test_equal_boxes_leave_one_with_the_linear_method():
    found, scores = soft_nms(BOXES[[0, 0, 0]], SCORES[[0, 0, 0]], CLASSES[:3], "linear")
    assert found.tolist() == [0] and scores.tolist() == pytest.approx([0.9])


def test_boxes_without_area_overlap_nothing():
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]])
    for method in ("linear", "gaussian"):
        _, scores = soft_nms(boxes, SCORES[:3], CLASSES[:3], method)
        assert torch.equal(scores, SCORES[:3])


@pytest.mark.parametrize("scores", [torch.zeros(0), torch.full((3,), 0.0005)])
def test_no_boxes_and_low_scores_leave_none(scores):
    number = len(scores)
    found, decayed = soft_nms(BOXES[:number], scores, CLASSES[:number], "gaussian")
    assert found.shape == decayed.shape == (0,)


def test_classes_may_have_any_numbers():
    found = soft_nms(BOXES, SCORES, CLASSES, "gaussian")
    others = soft_nms(BOXES, SCORES, torch.where(CLASSES == 2, 2**62, 5), "gaussian")
    assert all(map(torch.equal, found, others))


def test_the_input_stays():
    scores = SCORES.clone()
    soft_nms(BOXES, scores, CLASSES, "gaussian")
    assert torch.equal(scores, SCORES)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"method": "hard"}, "'hard'"),
        ({"method": "gaussian", "sigma": 0}, "sigma=0"),
        ({"method": "linear", "score_thresh": -1}, "score_thresh=-1"),
        ({"method": "gaussian", "sigma": math.nan}, "sigma=nan"),
        ({"method": "linear", "iou_thresh": math.nan}, "iou_thresh=nan"),
        ({"method": "linear", "iou_thresh": 1.5}, "iou_thresh=1.5"),
        ({"method": "linear", "score_thresh": math.nan}, "score_thresh=nan"),
        ({"boxes": BOXES[:, :3]}, r"boxes must be \(R, 4\)"),
        ({"scores": SCORES[:-1]}, "scores must be"),
        ({"classes": CLASSES[:-1]}, "classes must be"),
        ({"scores": SCORES * math.nan}, "scores has numbers that are negative or NaN"),
        ({"scores": -SCORES}, "scores has numbers that are negative or NaN"),
        ({"classes": CLASSES - 1}, "classes has the negative number -1"),
        ({"scores": SCORES.to("meta")}, "scores is on meta"),
        ({"classes": CLASSES.float()}, "classes must be int64"),
        ({"boxes": BOXES.to_sparse()}, "boxes must be dense"),
        ({"boxes": None}, "boxes must be a tensor, got NoneType"),
    ],
)
def test_bad_arguments_are_named(options, message):
    arguments = {"boxes": BOXES, "scores": SCORES, "classes": CLASSES, "method": "linear"}
    with pytest.raises((ValueError, TypeError), match=message):
        soft_nms(**{**arguments, **options})
