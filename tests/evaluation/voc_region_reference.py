"""A second implementation of VOCRegionEvaluator's measures, pixel by pixel and with plain loops."""

import math

import numpy as np
import pytest

from .scenes import CLASSES, tight_box

MEASURES = ("voc_region", "voc_box", "voc_mask_box")


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


def brute_force(scenes, label, measure, iou_thresh, year):
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
                excused = excused or overlap >= iou_thresh
            elif overlap > best_overlap:
                best, best_overlap = (image, index), overlap
        if best is not None and best_overlap >= iou_thresh and best not in used:
            used.append(best)
            hits += 1
        elif excused:
            continue
        else:
            misses += 1
        curve.append((hits, hits / (hits + misses)))
    if measure != "voc_region" and year >= 2010:
        area = sum(max(p for h, p in curve if h >= n) for n in range(1, hits + 1))
        return 100 * area / number
    total = 0.0
    for step in range(11):
        total += max([precision for h, precision in curve if 10 * h >= step * number], default=0.0)
    return 100 * total / 11


def check_against_brute_force(scenes, results, year=2012):
    assert set(results) == set(MEASURES)
    for measure in MEASURES:
        thresholds = {"AP50": 0.5, "AP70": 0.7} if measure == "voc_region" else {"AP50": 0.5}
        names = [f"{metric}-{name}" for metric in thresholds for name in CLASSES]
        assert set(results[measure]) == {*thresholds, *names}
        for metric, iou_thresh in thresholds.items():
            expected = [
                brute_force(scenes, i, measure, iou_thresh, year) for i in range(len(CLASSES))
            ]
            got = [results[measure][f"{metric}-{name}"] for name in CLASSES]
            assert got == pytest.approx(expected, nan_ok=True, abs=1e-9)
            known = [ap for ap in expected if not math.isnan(ap)]
            mean = sum(known) / len(known) if known else math.nan
            assert results[measure][metric] == pytest.approx(mean, nan_ok=True, abs=1e-9)
