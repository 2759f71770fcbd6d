import numpy as np
import pytest
import study_semantic
from detectron2.structures import polygons_to_bitmask

from hybrid_cascade.data.toy_scenes import SEMANTIC_CLASSES

K = len(SEMANTIC_CLASSES)
BALL, BUOY, TENT, SAIL, KITE, SKY, GRASS = range(7)


def test_pixels_and_objects_are_counted_by_what_the_branch_finds_likeliest(monkeypatch):
    truth = np.full((8, 8), GRASS)
    truth[:4, :4], truth[4:, 4:], truth[0, 7] = BALL, TENT, 255
    objects = [(BALL, [0, 0, 4, 0, 4, 4, 0, 4]), (TENT, [4, 4, 8, 4, 8, 8, 4, 8])]
    annotations = [
        {"category_id": label, "segmentation": [polygon], "iscrowd": 0}
        for label, polygon in objects
    ]
    crowd = {"category_id": BALL, "segmentation": {}, "iscrowd": 1}
    record = {"sem_seg_file_name": "map.png", "annotations": [*annotations, crowd]}
    # Grass is likeliest but where the ball is; of the things, buoy there and tent elsewhere.
    probabilities = np.zeros((K, 8, 8))
    probabilities[GRASS] = 0.5
    probabilities[TENT] = 0.3
    probabilities[BUOY][polygons_to_bitmask([objects[0][1]], 8, 8)] = 0.9
    monkeypatch.setattr(study_semantic, "predictions", lambda *_: [(record, probabilities)])
    monkeypatch.setattr(study_semantic, "read_label_map", lambda _: truth)
    found = study_semantic.errors("htc", "weights.pth")
    assert found["objects"] == {"right": 50, "surroundings": 50, "outline": 0}
    expected = np.zeros((K, K), int)
    expected[BALL, BUOY], expected[TENT, GRASS], expected[GRASS, GRASS] = 16, 16, 31
    assert found["pixels"] == expected.tolist()


def test_mean_iou_is_that_of_the_labels():
    # Label 0: 3 right, 1 taken for label 1. Label 1: 4 right.
    assert study_semantic.mean_iou(np.array([[3, 1], [0, 4]])) == pytest.approx(
        50 * (3 / 4 + 4 / 5)
    )
