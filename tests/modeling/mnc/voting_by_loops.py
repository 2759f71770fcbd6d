"""Mask voting as the paper describes it, pixel by pixel in plain loops, and cases to compare."""

import math

import pytest
import torch


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


def paste(mask, box, image_size):
    """The probability of each pixel (y, x) of an image for an instance."""
    x1, y1, x2, y2 = box
    cells = len(mask)
    return {
        (y, x): bilinear(
            mask, (y + 0.5 - y1) / (y2 - y1) * cells, (x + 0.5 - x1) / (x2 - x1) * cells
        )
        for y in range(image_size[0])
        for x in range(image_size[1])
    }


def voting_by_loops(
    boxes,
    masks,
    scores,
    image_size,
    nms_iou=0.3,
    merge_iou=0.5,
    mask_threshold=0.4,
    topk=100,
    binarize_before_voting=False,
):
    """(score, class, pixels) of each detection, in double precision."""
    boxes, masks, scores = (x.double().tolist() for x in (boxes, masks, scores))
    pasted = [paste(m, b, image_size) for m, b in zip(masks, boxes, strict=True)]
    if binarize_before_voting:
        pasted = [{p: float(v >= mask_threshold) for p, v in of_one.items()} for of_one in pasted]
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
            for pixel, value in pasted[k].items():
                votes[pixel] = votes.get(pixel, 0) + scores[k][label] / total * value
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
