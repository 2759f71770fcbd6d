import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as coco_mask
from torch import nn

from hybrid_cascade.modeling import SemanticTargets
from hybrid_cascade.visualization import cascade_panel, draw_cascade_panel
from hybrid_cascade.visualization.instances import draw_note

from .fake_cascade import BLUE, GREEN, RED, FakeCascade, has_hue_of, metadata, model_input


@pytest.fixture
def rows(monkeypatch):
    """Collect what the panel is composed of: titles and tiles of each row, names and colours."""
    rows = []
    compose = cascade_panel.compose

    def spy(tile_rows, legend):
        rows.extend([dict(row) for row in tile_rows] + [dict(legend)])
        return compose(tile_rows, legend)

    monkeypatch.setattr(cascade_panel, "compose", spy)
    return rows


def test_each_stage_has_a_tile_with_its_own_detections_titled_by_its_iou(rows):
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


def test_heads_without_stages_have_one_tile(rows):
    model = FakeCascade()
    del model.roi_heads.test_stage_choices
    draw_cascade_panel(model, model_input(), metadata())
    assert list(rows[0]) == ["detections"]


def test_a_class_has_the_same_colour_as_annotation_detection_and_semantic_label(rows, tmp_path):
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


def test_semantic_row_names_the_labels_present_and_ignored_pixels(rows, tmp_path):
    sem_seg = np.full((60, 80), 255, np.uint8)
    sem_seg[:20] = 7
    Image.fromarray(sem_seg).save(tmp_path / "map.png")
    names = metadata(stuff_classes=["sky", "sea", "sand"])
    ground_truth = {"sem_seg_file_name": str(tmp_path / "map.png")}
    draw_cascade_panel(FakeCascade(num_labels=3), model_input(), names, ground_truth=ground_truth)
    assert list(rows[1]) == ["semantic prediction", "semantic ground truth"]
    assert set(rows[2]) == {"sand", "label 7", "ignored"}


def test_annotations_are_scaled_from_the_original_size_to_the_tile(rows):
    big = {**model_input(60, 80), "height": 600, "width": 800}
    annotation = {"bbox": [400, 0, 800, 600], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    annotation["segmentation"] = [[400, 0, 800, 0, 800, 600, 400, 600]]
    draw_cascade_panel(FakeCascade(1), big, metadata(), ground_truth={"annotations": [annotation]})
    tile = rows[0]["ground truth"]
    middle = tile.shape[1] // 2
    assert not has_hue_of(tile[:, : middle - 5], RED)
    assert has_hue_of(tile[:, -20:], RED)


def test_scores_below_the_threshold_are_left_out_and_the_tile_says_so(rows, monkeypatch):
    notes = []
    monkeypatch.setattr(
        cascade_panel,
        "draw_note",
        lambda image, text: notes.append(text) or draw_note(image, text),
    )
    draw_cascade_panel(FakeCascade(1), model_input(), metadata(), score_thresh=0.95)
    (tile,) = rows[0].values()
    assert notes == ["no score of 0.95 or more; best: cup 0.9"]
    middle = tile.shape[0] // 2
    assert (tile[middle:] == 128).all() and (tile[:middle] != 128).any()
    draw_cascade_panel(FakeCascade(1, stages_that_find=0), model_input(), metadata())
    assert notes[1:] == ["nothing found"]
    draw_cascade_panel(FakeCascade(1), model_input(), metadata())
    assert len(notes) == 2


def test_bgr_input_is_drawn_as_rgb(rows):
    image = model_input(value=0)
    image["image"][0] = 200  # blue
    draw_cascade_panel(FakeCascade(1, stages_that_find=0), image, metadata())
    (tile,) = rows[0].values()
    assert (tile[tile.shape[0] // 2 :] == (0, 0, 200)).all()


def painting_cascade(source):
    model = FakeCascade(1, num_labels=4)
    model.semantic_targets = SemanticTargets(num_classes=4, num_things=3, source=source)
    return model


@pytest.mark.parametrize("masks", ["polygon", "bitmask", "none", "some"])
def test_painted_targets_are_drawn_as_the_model_learns_them(rows, masks):
    left = {"bbox": [0, 0, 40, 60], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    right = {**left, "bbox": [40, 0, 80, 60], "category_id": 1}
    if masks == "bitmask":
        half = np.zeros((60, 80), np.uint8, order="F")
        half[:30, :40] = 1
        left["segmentation"] = coco_mask.encode(half)
        right["segmentation"] = [[40, 0, 80, 0, 80, 30, 40, 30]]
    elif masks != "none":
        left["segmentation"] = [[0, 0, 40, 0, 40, 30, 0, 30]]
        right["segmentation"] = [[40, 0, 80, 0, 80, 30, 40, 30]] if masks == "polygon" else []
    crowd = {**left, "bbox": [0, 50, 80, 60], "iscrowd": 1, "category_id": 2}
    truth = {"annotations": [left, right, crowd]}
    draw_cascade_panel(painting_cascade("instances"), model_input(), metadata(), ground_truth=truth)
    tile = rows[1]["semantic targets (painted)"]
    h, w = (side // 2 for side in tile.shape[:2])
    quarters = {"left": tile[: h - 5, : w - 5], "right": tile[: h - 5, w + 5 :]}
    below = {"left": tile[h + 5 :, : w - 5], "right": tile[h + 5 :, w + 5 :]}
    assert has_hue_of(quarters["left"], RED)
    assert has_hue_of(quarters["right"], GREEN) == (masks != "some")
    assert has_hue_of(below["left"], RED) == (masks == "none")
    assert has_hue_of(below["right"], GREEN) == (masks == "none")
    expected = {"cup", "fork", "background"} - ({"fork"} if masks == "some" else set())
    expected |= {"ignored"} if masks == "some" else set()
    assert set(rows[2]) == expected
    assert "semantic ground truth" not in rows[1]


def test_targets_are_painted_only_where_the_model_reads_no_label_map(rows, tmp_path):
    Image.fromarray(np.full((60, 80), 1, np.uint8)).save(tmp_path / "map.png")
    truth = {"annotations": [], "sem_seg_file_name": str(tmp_path / "map.png")}
    for source, expected in (
        ("auto", "semantic ground truth"),
        ("sem_seg", "semantic ground truth"),
        ("instances", "semantic targets (painted)"),
    ):
        rows.clear()
        draw_cascade_panel(painting_cascade(source), model_input(), metadata(), ground_truth=truth)
        assert list(rows[1]) == ["semantic prediction", expected]
    rows.clear()
    draw_cascade_panel(
        painting_cascade("auto"), model_input(), metadata(), ground_truth={"annotations": []}
    )
    assert list(rows[1]) == ["semantic prediction", "semantic targets (painted)"]


@pytest.mark.parametrize("size", [(160, 160), (1200, 1600), (1000, 90)])
def test_panel_width_suits_small_and_large_images(size):
    panel = draw_cascade_panel(
        FakeCascade(4), model_input(*size), metadata(), ground_truth={"annotations": []}
    )
    assert panel.dtype == np.uint8 and panel.shape[2] == 3
    assert 1200 <= panel.shape[1] <= 2400


def test_a_model_in_training_mode_is_refused():
    with pytest.raises(ValueError, match="FakeCascade is in training mode"):
        draw_cascade_panel(FakeCascade().train(), model_input(), metadata())


@pytest.mark.parametrize("fails", [False, True])
def test_drawing_changes_no_attribute_of_the_model(monkeypatch, fails):
    model = FakeCascade(num_labels=2)

    def refuse(module, name, value=None):
        raise AssertionError(f"{name} of {type(module).__name__} has been set")

    def fail(*args):
        raise RuntimeError("failed inside")

    if fails:
        model.proposal_generator.register_forward_hook(fail)
    monkeypatch.setattr(nn.Module, "__setattr__", refuse)
    monkeypatch.setattr(nn.Module, "__delattr__", refuse)
    if fails:
        with pytest.raises(RuntimeError, match="failed inside"):
            draw_cascade_panel(model, model_input(), metadata())
    else:
        draw_cascade_panel(model, model_input(), metadata())
