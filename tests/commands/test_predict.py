import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer

from hybrid_cascade.commands import predict
from hybrid_cascade.engine import build_model, load_config

ROOT = Path(__file__).parents[2]
TOY = str(ROOT / "configs" / "quick_start" / "htc_toy.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of the toy HTC, random, five images, and an annotation file that lists four."""
    folder = tmp_path_factory.mktemp("predict")
    torch.manual_seed(0)
    model = build_model(load_config(TOY, ["train.device=cpu"]))
    for predictor in model.roi_heads.box_predictor:
        torch.nn.init.normal_(predictor.cls_score.weight, std=0.2)
    DetectionCheckpointer(model, str(folder)).save("toy")
    (folder / "images").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 96, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), pixels)
    names = ["kite", "sail", "tent", "buoy", "ball"]
    annotations = {
        "images": [{"file_name": f"{n}.png", "id": 100 + n} for n in range(4)],
        "categories": [{"id": 10 * i, "name": name} for i, name in enumerate(names, start=1)],
    }
    (folder / "val.json").write_text(json.dumps(annotations))
    return folder


def run(folder, output, *arguments, inputs=("images",)):
    paths = [str(folder / path) for path in inputs]
    weights = str(folder / "toy.pth")
    config = ["--config-file", TOY, "--weights", weights, "--device", "cpu"]
    return predict.main([*config, "--output", str(output), *arguments, "--input", *paths])


def test_two_processes_write_exactly_what_one_writes(folder, tmp_path, monkeypatch, capsys):
    options = ("--format", "coco-results", "csv", "masks", "--batch-size", "2")
    options += ("--score-thresh", "0.1")
    assert run(folder, tmp_path / "one", *options) == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        assert run(folder, tmp_path / "two", *options) == 0
        assert ("are not done" in capsys.readouterr().out) == (rank == "1")
    for path in ("coco_results.json", "detections.csv", "masks/3.png.png"):
        content = (tmp_path / "one" / path).read_bytes()
        assert content == (tmp_path / "two" / path).read_bytes() and len(content) > 50


def test_ids_are_those_of_the_annotation_file(folder, tmp_path):
    arguments = ("--image-root", str(folder / "images"), "--score-thresh", "0")
    assert run(folder, tmp_path, *arguments, inputs=["val.json"]) == 0
    found = json.loads((tmp_path / "coco_results.json").read_text())
    assert {x["image_id"] for x in found} == {100, 101, 102, 103}
    assert {x["category_id"] for x in found} <= {10, 20, 30, 40, 50}


def test_classes_are_chosen_by_name(folder, tmp_path):
    options = ("--score-thresh", "0", "--format", "csv")
    assert run(folder, tmp_path / "some", *options, "--classes", "tent", "kite") == 0
    rows = (tmp_path / "some" / "detections.csv").read_text().splitlines()[1:]
    assert rows and {row.split(",")[1] for row in rows} <= {"tent", "kite"}


def test_a_file_that_cannot_be_read_gives_an_exit_code_of_its_own(folder, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no image")
    paths = ["--input", str(tmp_path / "in"), str(folder / "images" / "0.png")]
    config = ["--config-file", TOY, "--weights", str(folder / "toy.pth"), "--device", "cpu"]
    assert predict.main([*config, "--output", str(tmp_path / "out"), *paths]) == 3
    assert "1 files could not be read" in capsys.readouterr().err
    assert "broken.jpg" in (tmp_path / "out" / "failed.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "xml"), "Unknown formats"),
        (("--classes", "horse"), "no ['horse'], but ball"),
        (("--batch-size", "0"), "--batch-size 0"),
        (("--weights", "nowhere.pth"), "nowhere.pth"),
        (("--input", "nowhere.jpg"), "nowhere.jpg"),
        (("--config-file", "nowhere.py"), "nowhere.py"),
    ],
)
def test_bad_usage_is_named_and_has_an_exit_code(folder, tmp_path, capsys, arguments, message):
    defaults = {
        "--config-file": TOY,
        "--weights": str(folder / "toy.pth"),
        "--input": str(folder / "images"),
        "--output": str(tmp_path),
    }
    defaults[arguments[0]] = arguments[1]
    with pytest.raises(SystemExit) as stopped:
        predict.main([word for pair in defaults.items() for word in pair])
    assert stopped.value.code == 2 and message in capsys.readouterr().err
