"""The file in onnxruntime against the model, which says what is right."""

import importlib.util
import warnings

import pytest
import torch

from hybrid_cascade.export import OnnxGraph, check_packages, export_onnx, largest_differences

from .models import BatchedNMS, boxes_near_the_threshold

TOLERANCES = {"pred_boxes": 1e-3, "pred_masks": 1e-4, "scores": 1e-5}
MNC = {"test_output": "nms", "global_context": True, "test_stages": 3}
CASES = {
    "HTC": ("htc_toy", {}, False),
    "Cascade Mask R-CNN": ("cascade_mask_rcnn_toy", {"test_stages": 2}, False),
    "boxes of each class": ("cascade_mask_rcnn_toy", {"boxes_of_each_class": True}, False),
    "Mask R-CNN, masks pasted": ("mask_rcnn_toy", {}, True),
    "Faster R-CNN": ("faster_rcnn_toy", {}, False),
    "SFPN": ("faster_rcnn_sfpn_toy", {}, False),
    "MNC": ("mnc_toy", MNC, False),
    "SSD, boxes resized": ("ssd_toy", {}, True),
}


@pytest.mark.parametrize("case", CASES)
def test_the_file_detects_in_any_image_what_the_model_detects(case, build, images, tmp_path):
    name, switches, paste_masks = CASES[case]
    model = build(name, **switches)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "torch.meshgrid")
        export_onnx(model, images[0], tmp_path / "model.onnx", paste_masks)
    graph = OnnxGraph(tmp_path / "model.onnx", threads=1)
    counts = []
    for image in images:
        sizes = [(image.shape[2], 2 * image.shape[1])] if paste_masks else []
        differences = largest_differences(model, graph, image, *sizes)
        assert all(v <= TOLERANCES.get(field, 0) for field, v in differences.items()), differences
        counts.append(len(graph(image, *map(torch.tensor, sizes))[0]))
    assert max(counts) > 0 and min(counts) == 0


def test_few_and_many_boxes_survive_the_same_nms_as_in_eager_mode(tmp_path):
    boxes = boxes_near_the_threshold()
    export_onnx(BatchedNMS(), boxes[:, :50], tmp_path / "nms.onnx")
    graph = OnnxGraph(tmp_path / "nms.onnx", threads=1)
    for number in (0, 10, 1000, 1001, boxes.shape[1]):
        differences = largest_differences(BatchedNMS(), graph, boxes[:, :number])
        assert set(differences.values()) == {0}, number


def test_the_negative_scores_of_an_rpn_count_in_nms_too(tmp_path):
    boxes = torch.rand(1, 40, 6)
    boxes[..., 2:4] += 1
    boxes[..., 4] -= 1000
    export_onnx(BatchedNMS(), boxes, tmp_path / "nms.onnx")
    graph = OnnxGraph(tmp_path / "nms.onnx", threads=1)
    assert 0 < len(graph(boxes)[0]) < 40
    assert set(largest_differences(BatchedNMS(), graph, boxes).values()) == {0}


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(package, monkeypatch, tmp_path):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == package else find_spec(n)
    )
    calls = {
        "onnx": lambda: export_onnx(BatchedNMS(), torch.rand(1, 5, 6), tmp_path / "nms.onnx"),
        "onnxruntime": lambda: OnnxGraph(tmp_path / "nms.onnx"),
    }
    with pytest.raises(ImportError, match=rf"{package} is missing: pip install 'hybrid_cascade"):
        calls[package]()
    check_packages()


def test_an_error_of_onnxruntime_is_a_runtime_error(tmp_path):
    export_onnx(BatchedNMS(), torch.rand(1, 5, 6), tmp_path / "nms.onnx")
    with pytest.raises(RuntimeError, match="Got invalid dimensions|Invalid rank"):
        OnnxGraph(tmp_path / "nms.onnx", threads=1)(torch.rand(5, 6))
