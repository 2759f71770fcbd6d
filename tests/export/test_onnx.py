"""The file in onnxruntime against the model, which says what is right."""

import warnings

import pytest
import torch

from hybrid_cascade.export import OnnxGraph, export_onnx, largest_differences

TOLERANCES = {"pred_boxes": 1e-3, "pred_masks": 1e-4, "scores": 1e-5}
MNC = {"test_output": "nms", "global_context": True, "test_stages": 3}
CASES = {
    "HTC": ("htc_toy", {}, False),
    "Cascade Mask R-CNN": ("cascade_mask_rcnn_toy", {"test_stages": 2}, False),
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
