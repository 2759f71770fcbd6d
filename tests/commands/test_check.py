import json

import numpy as np
import pytest
from PIL import Image

from hybrid_cascade.commands.check import main
from hybrid_cascade.data import draw_toy_scenes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("check") / "scenes"
    draw_toy_scenes(str(root), num_train=8, num_val=4, image_size=(64, 96))
    return root


@pytest.fixture
def options(scenes, tmp_path):
    """Return the options for both files, which are changed first."""

    def options(change=lambda content: None, splits=("train", "val")):
        found = []
        for split in splits:
            path = tmp_path / f"{split}.json"
            content = json.loads((scenes / f"annotations/instances_{split}.json").read_text())
            change(content)
            path.write_text(json.dumps(content))
            found += [f"--{split}", str(path), f"--{split}-images", str(scenes / split)]
        return found

    return options


def test_data_without_errors_give_a_table_what_is_odd_and_a_sheet(options, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main([*options(), "--contact-sheet", str(sheet), "--num-images", "6"]) == 0
    text = capsys.readouterr().out
    table = [line.split() for line in text.splitlines() if line.startswith(("class", "ball"))]
    assert table[0] == [
        "class",
        "train",
        "objects",
        "train",
        "images",
        "val",
        "objects",
        "val",
        "images",
    ]
    content = json.loads((tmp_path / "train.json").read_text())
    balls = [x for x in content["annotations"] if x["category_id"] == 1 and not x["iscrowd"]]
    images = {x["image_id"] for x in balls}
    assert table[1][:4] == ["ball", "(1)", str(len(balls)), str(len(images))]
    assert "ERRORS: none" in text and "ODD\n" in text and "images without objects" in text
    pixels = np.asarray(Image.open(sheet))
    assert pixels.ndim == 3 and pixels.std() > 20


def test_one_file_may_have_two_folders(options, scenes, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    arguments = options(splits=["train"])
    again = ["--val", arguments[1], "--val-images", f"{scenes}/train/../train"]
    for option in (["--contact-sheet", str(sheet)], ["--fast"]):
        assert main([*arguments, *again, *option]) == 0
        assert "images to evaluate on that are trained on, 8 times" in capsys.readouterr().out
    assert sheet.exists()


@pytest.mark.parametrize("name", ["\ud800.png", "a\0b.png", "a" * 5000])
def test_names_that_no_file_can_have_are_errors(options, capsys, name):
    def change(content):
        content["images"][3]["file_name"] = name

    for option in ([], ["--fast"]):
        assert main([*options(change), *option]) == 1
        assert "files" in capsys.readouterr().out.partition("ERRORS")[2].partition("ODD")[0]


def test_errors_are_listed_together_and_give_the_exit_code_1(options, tmp_path, capsys):
    def change(content):
        content["annotations"][0]["segmentation"] = [[1, 1]]
        content["annotations"][1]["category_id"] = 77
        content["images"][-1]["file_name"] = "gone.png"

    sheet = tmp_path / "sheet.png"
    assert main([*options(change), "--contact-sheet", str(sheet)]) == 1
    errors = capsys.readouterr().out.partition("ERRORS")[2]
    for split in ("train", "val"):
        assert errors.count(f"{split}.json'") >= 1 and f"{split}/gone.png' does not exist" in errors
    assert errors.count("`category_id` 77") == 2
    assert "no contact sheet" in errors and not sheet.exists()


def test_masks_are_needed_to_evaluate_unless_there_are_none_or_boxes_are_enough(options, capsys):
    def change(content):
        for annotation in content["annotations"]:
            if annotation["image_id"] != 4:
                del annotation["segmentation"]

    def without(content):
        for annotation in content["annotations"]:
            del annotation["segmentation"]

    assert main(options(change)) == 1
    assert "annotations without a mask in a dataset to evaluate" in capsys.readouterr().out
    assert main([*options(change), "--boxes"]) == 0
    assert main(options(without)) == 0


def test_one_file_alone_is_checked_too(options, capsys):
    assert main([*options(splits=["val"]), "--fast"]) == 0
    assert "train" not in capsys.readouterr().out.partition("\n\n")[0]


def test_a_file_that_is_no_annotation_file_gives_the_exit_code_1(options, tmp_path, capsys):
    arguments = options()
    (tmp_path / "val.json").write_text("{")
    assert main(arguments) == 1
    assert "val.json' can't be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda x: x[:2], "--train and --train-images come together"),
        (lambda x: [], "give --train"),
        (lambda x: [*x[:3], "nowhere"], "--train-images: no such folder: nowhere"),
        (lambda x: ["--train", "nowhere.json", *x[2:]], "--train: no such file: nowhere.json"),
        (lambda x: [*x, "--num-images", "0"], "--num-images 0"),
        (lambda x: [*x, "--contact-sheet", "nowhere/a.png"], "no such folder: nowhere"),
        (lambda x: [*x, "--contact-sheet", "a.txt"], "PNG or JPEG file, not a.txt"),
    ],
)
def test_bad_usage_is_named(options, change, reason, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(change(options()))
    assert reason in capsys.readouterr().err
