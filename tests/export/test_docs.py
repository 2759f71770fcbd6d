"""The scripts of docs/export.md, in processes without torch, against the model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import instantiate
from detectron2.data.transforms import ResizeShortestEdge
from PIL import Image

from hybrid_cascade.export import export_onnx, pool_with_torchvision
from hybrid_cascade.predict import as_model_input, read_inputs

from ..small_configs import load_toy

DOCS = Path(__file__).parents[2] / "docs" / "export.md"
SCRIPTS = dict(re.findall(r"^## (\w+)\n.*?^```python\n(.*?)^```", DOCS.read_text(), re.M | re.S))


@pytest.mark.parametrize("runtime", ["onnxruntime", "OpenVINO"])
def test_a_script_finds_without_torch_what_the_model_finds(runtime, exported):
    pytest.importorskip(runtime.lower())
    folder, expected = exported
    script = SCRIPTS[runtime].replace("800, 1333", "96, 150")
    assert script != SCRIPTS[runtime]
    script += "import sys; assert not {'torch', 'detectron2'} & set(sys.modules)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", script]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=300)
    found = np.load(folder / "detections.npz")
    assert len(expected) and len(found["scores"]) == len(expected)
    np.testing.assert_allclose(found["pred_boxes"], expected.pred_boxes.tensor, atol=1e-3)
    np.testing.assert_allclose(found["scores"], expected.scores, atol=1e-5)
    np.testing.assert_array_equal(found["pred_classes"], expected.pred_classes)
    assert found["pred_masks"].shape == expected.pred_masks.shape
    assert (found["pred_masks"] != expected.pred_masks.numpy()).mean() < 1e-5
    assert tuple(found["image_size"]) == (160, 200)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of an exported model and an image, and what the model finds in the image."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    model = instantiate(load_toy("mask_rcnn_toy")).eval()
    for name, weight in model.named_parameters():
        if name.endswith(("cls_score.weight", "bbox_pred.weight", "predictor.weight")):
            torch.nn.init.normal_(weight, std=0.05)
    noise = np.random.default_rng(0).integers(0, 256, (160, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "image.jpg")
    (source,) = read_inputs(folder / "image.jpg")
    model_input = as_model_input(source, [ResizeShortestEdge(96, 150)], "BGR")
    export_onnx(model, model_input["image"].float(), folder / "htc.onnx", paste_masks=True)
    with torch.no_grad():
        [output] = pool_with_torchvision(model)([model_input])
    return folder, output["instances"]
