import re

import numpy as np
import pytest
import torch
from detectron2.data import transforms
from detectron2.structures import Boxes, Instances
from PIL import Image

from hybrid_cascade.commands import visualize
from hybrid_cascade.engine import find_config


class FakeDetector(torch.nn.Module):
    input_format = "RGB"

    def __init__(self):
        super().__init__()
        self.roi_heads = torch.nn.Module()
        self.inputs = []

    def forward(self, batched_inputs):
        self.inputs.extend(batched_inputs)
        assert not self.training and torch.is_autocast_enabled("cpu")
        found = Instances((batched_inputs[0]["height"], batched_inputs[0]["width"]))
        found.pred_boxes = Boxes(torch.tensor([[10.0, 10, 20, 20]]))
        found.scores, found.pred_classes = torch.tensor([0.4]), torch.tensor([0])
        return [{"instances": found}]


@pytest.fixture
def detector(monkeypatch):
    model = FakeDetector()
    fakes = {
        "load_config": lambda path, opts: find_config(path) and setattr(model, "opts", opts),
        "build_model": lambda cfg: torch.nn.Identity(),
        "prepare_inference": lambda cfg, built: model.eval(),
        "inference_autocast": lambda cfg: torch.autocast("cpu", torch.bfloat16),
        "load_weights": lambda model, path: {},
        "test_dataset_names": lambda cfg: ["coco_2017_val"],
        "test_augmentations": lambda cfg: ([transforms.Resize((32, 64))], "RGB"),
    }
    for name, function in fakes.items():
        monkeypatch.setattr(visualize, name, function)
    return model


@pytest.fixture
def run(tmp_path):
    """Call the tool with inputs; config and weights are there unless other options are given."""
    for name in ("config.yaml", "model.pth"):
        (tmp_path / name).touch()

    def call(*inputs, config="config.yaml", weights="model.pth", more=()):
        config, weights, output = (str(tmp_path / x) for x in (config, weights, "panels"))
        paths = [str(tmp_path / x) for x in inputs]
        arguments = ["--config-file", config, "--weights", weights, "--input", *paths]
        return visualize.main([*arguments, "--output", output, *more])

    return call


def draw_image(path, color=(200, 0, 0)):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((30, 40, 3), color, np.uint8)).save(path)


def panels(tmp_path):
    return sorted(p.name for p in (tmp_path / "panels").glob("*"))


def test_images_and_folders_give_a_panel_each(tmp_path, run, detector):
    draw_image(tmp_path / "one.png")
    draw_image(tmp_path / "folder" / "two.jpg")
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    assert run("one.png", "folder", more=["MODEL.KEY", "3"]) == 0
    assert panels(tmp_path) == ["one_cascade.png", "two_cascade.png"]
    assert detector.opts == ["MODEL.KEY", "3"]


def test_model_gets_the_augmented_image_in_its_channel_order(tmp_path, run, detector):
    draw_image(tmp_path / "one.png", color=(200, 0, 50))
    run("one.png")
    image = detector.inputs[0]["image"]
    assert image.shape == (3, 32, 64)
    assert image[:, 0, 0].tolist() == [200, 0, 50]


@pytest.mark.parametrize("option", ["--score-thresh", "--score-threshold"])
def test_detections_of_lower_scores_are_left_out(tmp_path, run, detector, option):
    draw_image(tmp_path / "one.png")
    drawn = []
    for options in ([], [option, "0.5"], [option, "0.3"]):
        assert run("one.png", more=options) == 0
        drawn.append((tmp_path / "panels" / "one_cascade.png").read_bytes())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "inputs, options, message",
    [
        (["missing.jpg"], {}, "no such file: .*missing.jpg"),
        (["notes.txt"], {}, "no image that can be read: .*notes.txt"),
        (["empty"], {}, "no image that can be read: .*empty"),
        (["one.png", "empty/../one.png"], {}, "2 images would be written to one_cascade.png"),
        (["one.png"], {"config": "missing.yaml"}, "no config file .*missing.yaml"),
        (["one.png"], {"weights": "missing.pth"}, "no such file: .*missing.pth"),
        (["one.png"], {"more": ["--dataset", "no_such_set"]}, "no such dataset: no_such_set"),
    ],
)
def test_bad_usage_exits_with_2_and_names_what_is_wrong(
    tmp_path, run, detector, capsys, inputs, options, message
):
    draw_image(tmp_path / "one.png")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as exit_info:
        run(*inputs, **options)
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert not detector.inputs


def test_broken_images_are_named_and_skipped(tmp_path, run, detector, capfd):
    draw_image(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:16])
    assert run("broken.png", "good.png") == 0
    assert f"cannot read image, skipped: {tmp_path / 'broken.png'}" in capfd.readouterr().err
    assert panels(tmp_path) == ["good_cascade.png"]
    assert run("broken.png") == 2
