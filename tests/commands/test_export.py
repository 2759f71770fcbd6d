import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms
from detectron2.layers import shapes_to_tensor
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from google.protobuf.message import DecodeError
from PIL import Image

from hybrid_cascade.commands import export
from hybrid_cascade.engine import find_config
from hybrid_cascade.export import OnnxGraph, pool_with_torchvision

ROOT = Path(__file__).parents[2]
HTC = ROOT / "configs" / "quick_start" / "htc_toy.py"


@pytest.fixture
def run(tmp_path):
    """Call the tool; files are there unless other options are given."""
    for name in ("config.yaml", "model.pth"):
        (tmp_path / name).touch()
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")

    def call(
        config="config.yaml", weights="model.pth", image="noise.png", more=(), output="model.ts"
    ):
        options = {"--config-file": config, "--weights": weights, "--sample-image": image}
        arguments = [str(x) for k, v in options.items() for x in (k, tmp_path / v)]
        return export.main([*arguments, "--output", str(tmp_path / "new" / output), *more])

    return call


class FakeDetector(torch.nn.Module):
    """Detects one box, of the size of the image."""

    device = torch.device("cpu")
    in_python = detects_nothing = has_unknown_layer = False

    def forward(self, batched_inputs):
        size = shapes_to_tensor(list(batched_inputs[0]["image"].shape[-2:]))
        if self.in_python:
            size = torch.tensor(size.tolist()) + 0 * size  # ONNX drops an input without effect
        box = torch.cat([torch.zeros_like(size), size.flip(0)])[None].float()
        found = Instances(size, pred_boxes=Boxes(box[self.detects_nothing :]))
        if self.has_unknown_layer:
            found.scores = torch.linalg.eigvals(box[:, None, :1]).real[:, 0]
        if "height" in batched_inputs[0]:
            found = detector_postprocess(found, *map(batched_inputs[0].get, ("height", "width")))
        return [{"instances": found}]


@pytest.fixture
def detector(monkeypatch):
    model = FakeDetector()
    fakes = {
        "load_config": lambda path, opts: find_config(path),
        "build_model": lambda cfg: model,
        "load_weights": lambda model, path: None,
        "test_augmentations": lambda cfg: ([transforms.Resize((32, 64))], "RGB"),
    }
    for name, function in fakes.items():
        monkeypatch.setattr(export, name, function)
    return model


def test_an_exported_htc_runs_in_a_process_with_torch_and_torchvision_only(
    tmp_path, run, capsys, monkeypatch
):
    model = instantiate(LazyConfig.load(str(HTC)).model).eval()
    torch.save(model.state_dict(), tmp_path / "model.pth")
    small = "dataloader.test.mapper.augmentations=[]"
    assert run(config=HTC, more=["--dump-graph", str(tmp_path / "graph"), small]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"sample image, 64x96: \d+ detections, .*pred_masks 0, scores 0", printed)
    assert re.search(r"part of it, 32x72: \d+ detections, .*pred_masks 0, scores 0", printed)
    assert printed.endswith("it needs torchvision::nms, torchvision::roi_align beside PyTorch\n")
    assert "roi_align" in (tmp_path / "graph" / "model_ts_IR_inlined.txt").read_text()

    image = torch.randint(0, 256, (3, 97, 130)).float()
    model = model.to(memory_format=torch.channels_last)  # as the tool's on CPUs
    with torch.no_grad():
        [found] = pool_with_torchvision(model).inference([{"image": image}], do_postprocess=False)
    expected = [found.pred_boxes.tensor, found.pred_classes, found.pred_masks, found.scores]
    assert len(found)
    torch.save([image, *expected, torch.tensor([97, 130])], tmp_path / "expected.pth")
    program = """
import sys, torch, torchvision
image, *expected = torch.load("expected.pth")
found = torch.jit.load("new/model.ts")(image)
assert len(found) == len(expected) and all(map(torch.equal, found, expected))
assert "hybrid_cascade" not in sys.modules and "detectron2" not in sys.modules
"""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=300)


@pytest.mark.parametrize("output", ["model.ts", "model.onnx"])
def test_a_model_that_a_trace_does_not_describe_writes_no_file(
    tmp_path, run, detector, capsys, output
):
    assert run(output=output) == 0
    before = (tmp_path / "new" / output).read_bytes()
    assert "sample image, 32x64: 1 detections, largest differences: pred_boxes 0, image_size 0" in (
        capsys.readouterr().out
    )
    detector.in_python = True
    assert run(output=output) == 1
    captured = capsys.readouterr()
    assert "part of it, 16x48: 1 detections, largest differences: pred_boxes 16" in captured.out
    assert "no file is written" in captured.err
    # That of before is still there, and nothing else.
    assert [path.name for path in (tmp_path / "new").iterdir()] == [output]
    assert (tmp_path / "new" / output).read_bytes() == before


@pytest.mark.parametrize(
    "output, options, is_onnx",
    [
        ("model.ts", [], False),
        ("model.onnx", ["--format", "torchscript"], False),
        ("model.onnx", [], True),
        ("model", ["--format", "onnx"], True),
    ],
)
def test_the_format_is_that_of_the_option_or_of_the_files_name(
    tmp_path, run, detector, output, options, is_onnx
):
    assert run(output=output, more=options) == 0
    assert (onnx_inputs(tmp_path / "new" / output) == ["image"]) == is_onnx


@pytest.mark.parametrize("output", ["model.ts", "model.onnx"])
def test_boxes_are_resized_to_the_sample_image_where_masks_are_pasted(
    tmp_path, run, detector, capsys, output
):
    assert run(output=output, more=["--paste-masks"]) == 0
    assert "part of it, 16x48: 1 detections, largest differences: pred_boxes 0, image_size 0" in (
        capsys.readouterr().out
    )
    path = tmp_path / "new" / output
    inputs = torch.zeros(3, 32, 64), torch.tensor([64, 96])
    graph = OnnxGraph(path) if output == "model.onnx" else torch.jit.load(path)
    assert graph(*inputs)[0].tolist() == [[0, 0, 96, 64]]


def onnx_inputs(path):
    """The names of the inputs of a file; none of one that is not ONNX."""
    try:
        return [x.name for x in onnx.load(path).graph.input]
    except DecodeError:
        return []


@pytest.mark.parametrize(
    "more, message",
    [
        (["--dump-graph", "graph"], "--dump-graph writes TorchScript"),
        (["--format", "caffe"], "invalid choice: 'caffe'"),
    ],
)
def test_options_that_do_not_fit_onnx_exit_with_2(tmp_path, run, detector, capsys, more, message):
    with pytest.raises(SystemExit) as exit_info:
        run(output="model.onnx", more=more)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_missing_package_of_onnx_exits_with_2_and_names_the_extra(
    run, detector, capsys, monkeypatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exit_info:
        run(output="model.onnx")
    assert exit_info.value.code == 2
    assert "onnx is missing: pip install 'hybrid_cascade[onnx]'" in capsys.readouterr().err


def test_a_layer_that_onnx_lacks_exits_with_2_and_is_named(tmp_path, run, detector, capsys):
    detector.has_unknown_layer = True
    with pytest.raises(SystemExit) as exit_info:
        run(output="model.onnx")
    assert exit_info.value.code == 2
    assert re.search("ONNX can't describe this model: .*eigvals", capsys.readouterr().err)
    assert not any((tmp_path / "new").iterdir())


@pytest.mark.parametrize(
    "options, message",
    [
        ({"config": "missing.py"}, "no config file .*missing.py"),
        ({"weights": "missing.pth"}, "no such file: .*missing.pth"),
        ({"image": "missing.png"}, "no such file: .*missing.png"),
        ({"image": "model.pth"}, "model.pth. is neither an image nor a video"),
    ],
)
def test_bad_usage_exits_with_2_and_names_what_is_wrong(
    tmp_path, run, detector, capsys, options, message
):
    with pytest.raises(SystemExit) as exit_info:
        run(**options)
    assert exit_info.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "attribute, message",
    [("detects_nothing", "nothing is detected.*noise.png"), ("output_sem_seg", "output_sem_seg=")],
)
def test_models_that_cannot_be_exported_or_compared_exit_with_2(
    tmp_path, run, detector, capsys, attribute, message
):
    setattr(detector, attribute, True)
    with pytest.raises(SystemExit) as exit_info:
        run()
    assert exit_info.value.code == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "new").exists()
