import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms
from detectron2.layers import shapes_to_tensor
from detectron2.structures import Boxes, Instances
from PIL import Image

from hybrid_cascade.commands import export
from hybrid_cascade.engine import find_config
from hybrid_cascade.export import pool_with_torchvision

ROOT = Path(__file__).parents[2]
HTC = ROOT / "configs" / "quick_start" / "htc_toy.py"


@pytest.fixture
def run(tmp_path):
    """Call the tool; files are there unless other options are given."""
    for name in ("config.yaml", "model.pth"):
        (tmp_path / name).touch()
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")

    def call(config="config.yaml", weights="model.pth", image="noise.png", more=()):
        options = {"--config-file": config, "--weights": weights, "--sample-image": image}
        arguments = [str(x) for k, v in options.items() for x in (k, tmp_path / v)]
        return export.main([*arguments, "--output", str(tmp_path / "new" / "model.ts"), *more])

    return call


class FakeDetector(torch.nn.Module):
    """Detects one box, of the size of the image."""

    device = torch.device("cpu")
    in_python = detects_nothing = False

    def forward(self, batched_inputs):
        size = shapes_to_tensor(list(batched_inputs[0]["image"].shape[-2:]))
        if self.in_python:
            size = torch.tensor(size.tolist())
        box = torch.cat([torch.zeros_like(size), size.flip(0)])[None].float()
        found = Instances(size, pred_boxes=Boxes(box[self.detects_nothing :]))
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


def test_a_model_that_a_trace_does_not_describe_writes_no_file(tmp_path, run, detector, capsys):
    assert run() == 0
    before = (tmp_path / "new" / "model.ts").read_bytes()
    assert "sample image, 32x64: 1 detections, largest differences: pred_boxes 0, image_size 0" in (
        capsys.readouterr().out
    )
    detector.in_python = True
    assert run() == 1
    captured = capsys.readouterr()
    assert "part of it, 16x48: 1 detections, largest differences: pred_boxes 16" in captured.out
    assert "no file is written" in captured.err
    # That of before is still there, and nothing else.
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["model.ts"]
    assert (tmp_path / "new" / "model.ts").read_bytes() == before


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
