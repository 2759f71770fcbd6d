import copy

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import Metadata
from detectron2.modeling.matcher import Matcher
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.visualizer import Visualizer
from PIL import Image
from torch import nn

from hybrid_cascade.modeling import SemanticTargets
from hybrid_cascade.visualization import cascade_panel, draw_cascade_panel

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class FakeCascade(nn.Module):
    """Finds one object in the left half at stage t if t <= `stages_that_find`, class = t - 1."""

    def __init__(self, num_stages=3, masks=True, num_labels=0, stages_that_find=3):
        super().__init__()
        self.input_format = "BGR"
        self.masks, self.num_labels, self.stages_that_find = masks, num_labels, stages_that_find
        self.output_sem_seg = False
        self.roi_heads = nn.Module()
        self.roi_heads.test_stage_choices = range(1, num_stages + 1)
        self.roi_heads.test_stages = None
        ious = [0.5 + 0.1 * t for t in range(num_stages)]
        self.roi_heads.proposal_matchers = [Matcher([iou], [0, 1]) for iou in ious]
        self.frozen = nn.Dropout().eval()
        self.calls = []

    def forward(self, batched_inputs):
        (x,) = batched_inputs
        h, w = x["height"], x["width"]
        stage = getattr(self.roi_heads, "test_stages", None) or 1
        self.calls.append((stage, self.training, self.output_sem_seg, h, w))
        n = int(stage <= self.stages_that_find)
        found = Instances((h, w))
        found.pred_boxes = Boxes(torch.tensor([[0.1 * w, 0.2 * h, 0.5 * w, 0.8 * h]])[:n])
        found.scores = torch.tensor([0.9])[:n]
        found.pred_classes = torch.tensor([stage - 1])[:n]
        if self.masks:
            found.pred_masks = torch.zeros(n, h, w, dtype=torch.bool)
            found.pred_masks[:, int(0.2 * h) : int(0.8 * h), int(0.1 * w) : int(0.5 * w)] = True
        output = {"instances": found}
        if self.output_sem_seg and self.num_labels:
            output["sem_seg"] = torch.zeros(self.num_labels, h, w)
            output["sem_seg"][self.num_labels - 1] = 1
        return [output]


def metadata(**more):
    classes = {"thing_classes": ["cup", "fork", "bowl"], "thing_colors": [RED, GREEN, BLUE]}
    return Metadata(name="test", **{**classes, **more})


def model_input(height=60, width=80, value=128):
    return {
        "image": torch.full((3, height, width), value, dtype=torch.uint8),
        "height": height,
        "width": width,
    }


def titles_and_tiles(monkeypatch):
    """Collect what the panel is composed of."""
    rows = []
    compose = cascade_panel._compose

    def spy(tile_rows, legend):
        rows.extend([dict(row) for row in tile_rows] + [dict(legend)])
        return compose(tile_rows, legend)

    monkeypatch.setattr(cascade_panel, "_compose", spy)
    return rows


def has_hue_of(tile, color):
    """Whether pixels of a tile on grey lean clearly towards a primary colour."""
    lean = tile.astype(int) - tile.astype(int).mean(axis=2, keepdims=True)
    return ((lean[:, :, np.argmax(color)] > 40).mean()) > 0.05


def test_each_stage_has_a_tile_with_its_own_detections_titled_by_its_iou(monkeypatch):
    rows = titles_and_tiles(monkeypatch)
    model = FakeCascade()
    draw_cascade_panel(model, model_input(), metadata())
    assert list(rows[0]) == [
        "after stage 1 (IoU 0.5)",
        "after stage 2 (IoU 0.6)",
        "after stage 3 (IoU 0.7)",
    ]
    for tile, color in zip(rows[0].values(), (RED, GREEN, BLUE), strict=True):
        found = [has_hue_of(tile, c) for c in (RED, GREEN, BLUE)]
        assert found == [c == color for c in (RED, GREEN, BLUE)]


def test_heads_without_stages_have_one_tile(monkeypatch):
    rows = titles_and_tiles(monkeypatch)
    model = FakeCascade()
    model.roi_heads = nn.Module()
    draw_cascade_panel(model, model_input(), metadata())
    assert list(rows[0]) == ["detections"]


def test_a_class_has_the_same_colour_as_annotation_detection_and_semantic_label(
    monkeypatch, tmp_path
):
    rows = titles_and_tiles(monkeypatch)
    Image.fromarray(np.full((60, 80), 1, np.uint8)).save(tmp_path / "map.png")
    annotation = {"bbox": [8, 12, 40, 48], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    ground_truth = {"annotations": [annotation], "sem_seg_file_name": str(tmp_path / "map.png")}
    annotation["segmentation"] = [[8, 12, 40, 12, 40, 48, 8, 48]]
    names = metadata(stuff_classes=["table", "cup"])
    draw_cascade_panel(
        FakeCascade(1, num_labels=2), model_input(), names, ground_truth=ground_truth
    )
    tiles = {**rows[0], **rows[1]}
    assert len(tiles) == 4
    assert all(has_hue_of(tile, RED) for tile in tiles.values())
    assert rows[2] == {"cup": (1, 0, 0)}


def test_semantic_row_names_the_labels_present_and_ignored_pixels(monkeypatch, tmp_path):
    rows = titles_and_tiles(monkeypatch)
    label_map = np.full((60, 80), 255, np.uint8)
    label_map[:20] = 7
    Image.fromarray(label_map).save(tmp_path / "map.png")
    names = metadata(stuff_classes=["sky", "sea", "sand"])
    ground_truth = {"sem_seg_file_name": str(tmp_path / "map.png")}
    draw_cascade_panel(FakeCascade(num_labels=3), model_input(), names, ground_truth=ground_truth)
    assert list(rows[1]) == ["semantic prediction", "semantic ground truth"]
    assert set(rows[2]) == {"sand", "label 7", "ignored"}


@pytest.mark.parametrize("source, stuff", [("instances", ["table"] * 4), ("auto", None)])
def test_labels_of_painted_targets_are_things_and_background(monkeypatch, source, stuff):
    rows = titles_and_tiles(monkeypatch)
    model = FakeCascade(num_labels=4)
    model.semantic_targets = SemanticTargets(num_classes=4, num_things=3, source=source)
    draw_cascade_panel(model, model_input(), metadata(stuff_classes=stuff))
    assert list(rows[-1]) == ["background"]


def test_crowd_regions_are_striped(monkeypatch):
    rows = titles_and_tiles(monkeypatch)
    region = np.zeros((60, 80), np.uint8, order="F")
    region[10:50, 10:70] = 1
    annotation = {
        "bbox": [10, 10, 60, 40],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": 0,
        "iscrowd": 1,
        "segmentation": mask_util.encode(region),
    }
    for segmentation in (annotation["segmentation"], [[10, 10, 70, 10, 70, 50, 10, 50]], None):
        annotation["segmentation"] = segmentation
        if segmentation is None:
            del annotation["segmentation"]
        before = copy.deepcopy(annotation)
        draw_cascade_panel(
            FakeCascade(1), model_input(), metadata(), ground_truth={"annotations": [annotation]}
        )
        tile = rows[-3]["ground truth"]
        line = tile[tile.shape[0] // 3, :, 1].astype(int)  # green: low where red is strong
        changes = np.abs(np.diff(line)) > 20
        assert changes.sum() > 20
        assert annotation == before


def test_annotations_are_scaled_from_the_original_size_to_the_tile(monkeypatch):
    rows = titles_and_tiles(monkeypatch)
    big = {**model_input(60, 80), "height": 600, "width": 800}
    annotation = {"bbox": [400, 0, 800, 600], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    annotation["segmentation"] = [[400, 0, 800, 0, 800, 600, 400, 600]]
    draw_cascade_panel(FakeCascade(1), big, metadata(), ground_truth={"annotations": [annotation]})
    tile = rows[0]["ground truth"]
    middle = tile.shape[1] // 2
    assert not has_hue_of(tile[:, : middle - 5], RED)
    assert has_hue_of(tile[:, -20:], RED)


@pytest.mark.parametrize("masks", [True, False])
def test_no_detections_leave_the_image_as_it_is(monkeypatch, masks):
    rows = titles_and_tiles(monkeypatch)
    model = FakeCascade(1, masks=masks, stages_that_find=0)
    draw_cascade_panel(model, model_input(value=100), metadata())
    assert (rows[0]["after stage 1 (IoU 0.5)"] == 100).all()


def test_boxes_without_masks_are_drawn(monkeypatch):
    rows = titles_and_tiles(monkeypatch)
    draw_cascade_panel(FakeCascade(1, masks=False), model_input(), metadata())
    (tile,) = rows[0].values()
    assert (np.ptp(tile.astype(int), axis=2) > 40).any()


def test_scores_below_the_threshold_are_left_out(monkeypatch):
    rows = titles_and_tiles(monkeypatch)
    draw_cascade_panel(FakeCascade(1), model_input(), metadata(), score_threshold=0.95)
    (tile,) = rows[0].values()
    assert (tile == 128).all()


def test_bgr_input_is_drawn_as_rgb(monkeypatch):
    rows = titles_and_tiles(monkeypatch)
    image = model_input(value=0)
    image["image"][0] = 200  # blue
    draw_cascade_panel(FakeCascade(1, stages_that_find=0), image, metadata())
    (tile,) = rows[0].values()
    assert (tile == (0, 0, 200)).all()


@pytest.mark.parametrize("fails", [False, True])
def test_model_is_left_as_it_was_found(fails):
    model = FakeCascade(num_labels=2).train()
    model.frozen.eval()
    model.roi_heads.test_stages = 2
    inside = []

    def look(module, args):
        inside.append((module.training, module.roi_heads.test_stages, module.output_sem_seg))
        if fails and len(inside) == 2:
            raise RuntimeError("failed inside")

    model.register_forward_pre_hook(look)
    if fails:
        with pytest.raises(RuntimeError, match="failed inside"):
            draw_cascade_panel(model, model_input(), metadata())
    else:
        draw_cascade_panel(model, model_input(), metadata())
    assert inside == [(False, stage, True) for stage in (1, 2, 3)[: len(inside)]]
    assert model.training and model.roi_heads.training and not model.frozen.training
    assert model.roi_heads.test_stages == 2 and model.output_sem_seg is False


@pytest.mark.parametrize("size", [(160, 160), (1200, 1600), (1000, 90)])
def test_panel_width_suits_small_and_large_images(size):
    panel = draw_cascade_panel(
        FakeCascade(4), model_input(*size), metadata(), ground_truth={"annotations": []}
    )
    assert panel.dtype == np.uint8 and panel.shape[2] == 3
    assert 1200 <= panel.shape[1] <= 2400


def test_labels_stay_inside_their_tile_and_apart_from_one_another():
    canvas = Visualizer(np.zeros((200, 300, 3), np.uint8), metadata())
    corners = [(290, 195), (288, 190), (0, 0), (3, 2)]
    boxes = np.array([(x, y, x + 9, y + 5) for x, y in corners])
    canvas.overlay_instances(boxes=boxes, labels=["refrigerator 0.99"] * 4)
    cascade_panel._render(canvas.output)
    renderer = canvas.output.canvas.get_renderer()
    extents = [t.get_window_extent(renderer) for t in canvas.output.ax.texts]
    assert len(extents) == 4
    for i, extent in enumerate(extents):
        assert extent.x0 >= -1 and extent.y0 >= -1 and extent.x1 <= 301 and extent.y1 <= 201
        assert extent.count_overlaps(extents[:i]) == 0
