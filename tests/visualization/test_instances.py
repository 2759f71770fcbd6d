import copy

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data.transforms import NoOpTransform
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.visualizer import Visualizer

from hybrid_cascade.visualization.instances import draw_annotations, draw_detections, render

from .fake_cascade import metadata

SIZE = (300, 400)


def gray(value=128):
    return np.full((*SIZE, 3), value, np.uint8)


def detections(*boxes, masks):
    found = Instances(SIZE, pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)))
    found.scores = torch.full((len(boxes),), 0.9)
    found.pred_classes = torch.zeros(len(boxes), dtype=torch.long)
    if masks:
        found.pred_masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
    return found


def test_crowd_regions_are_striped():
    region = np.zeros(SIZE, np.uint8, order="F")
    region[50:250, 50:350] = 1
    annotation = {
        "bbox": [50, 50, 300, 200],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": 1,
        "segmentation": mask_util.encode(region),
    }
    polygon = [50, 50, 350, 50, 350, 250, 50, 250]
    for segmentation in (annotation["segmentation"], [polygon], None):
        annotation["segmentation"] = segmentation
        if segmentation is None:
            del annotation["segmentation"]
        before = copy.deepcopy(annotation)
        dataset_dict = {"annotations": [annotation]}
        tile = draw_annotations(gray(), dataset_dict, NoOpTransform(), metadata())
        line = tile[tile.shape[0] // 3, :, 1].astype(int)  # green: low where red is strong
        changes = np.abs(np.diff(line)) > 20
        assert changes.sum() > 20
        assert annotation == before


@pytest.mark.parametrize("masks", [True, False])
def test_no_detections_leave_the_image_as_it_is(masks):
    assert (draw_detections(gray(100), detections(masks=masks), metadata()) == 100).all()


def test_boxes_without_masks_are_drawn():
    found = detections([40.0, 60, 200, 240], masks=False)
    tile = draw_detections(gray(), found, metadata())
    assert (np.ptp(tile.astype(int), axis=2) > 40).any()


def test_labels_stay_inside_their_tile_and_apart_from_one_another():
    canvas = Visualizer(np.zeros((200, 300, 3), np.uint8), metadata())
    corners = [(290, 195), (288, 190), (0, 0), (3, 2)]
    boxes = np.array([(x, y, x + 9, y + 5) for x, y in corners])
    canvas.overlay_instances(boxes=boxes, labels=["refrigerator 0.99"] * 4)
    render(canvas.output)
    renderer = canvas.output.canvas.get_renderer()
    extents = [t.get_window_extent(renderer) for t in canvas.output.ax.texts]
    assert len(extents) == 4
    for i, extent in enumerate(extents):
        assert extent.x0 >= -1 and extent.y0 >= -1 and extent.x1 <= 301 and extent.y1 <= 201
        assert extent.count_overlaps(extents[:i]) == 0
