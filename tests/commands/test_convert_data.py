import json

import pytest
from PIL import Image

from hybrid_cascade.commands.convert_data import main
from hybrid_cascade.data.checks.data_file import DataFile, examine


@pytest.fixture
def folder(tmp_path):
    """YOLO's folders with five images, of which one has no labels."""
    for name in ("images/train", "labels/train"):
        (tmp_path / name).mkdir(parents=True)
    for index in range(5):
        Image.new("RGB", (40, 30)).save(tmp_path / f"images/train/{index}.jpg")
        if index:
            text = "1 0.5 0.5 0.25 0.4\n0 0.1 0.1 0.5 0.1 0.5 0.5\n"
            (tmp_path / f"labels/train/{index}.txt").write_text(text)
    (tmp_path / "data.yaml").write_text("names: [fork, cup]")
    return tmp_path


def arguments(folder, *more):
    inputs = [str(folder / "labels/train"), "--images", str(folder / "images/train")]
    return ["--from", "yolo", *inputs, "--output", str(folder / "train.json"), *more]


def test_a_folder_becomes_a_file_that_can_be_trained_and_evaluated_on(folder, capsys):
    assert main(arguments(folder)) == 0
    assert "train.json: 5 images, 8 annotations, 2 classes" in capsys.readouterr().out
    file = DataFile.read(str(folder / "train.json"), str(folder / "images/train"))
    assert file.classes == {1: "fork", 2: "cup"} and file.objects == {1: 4, 2: 4}
    examine(file, evaluation=True, masks=False, decode=True)
    assert not file.report.errors
    assert sorted(p.name for p in folder.iterdir()) == [
        "data.yaml",
        "images",
        "labels",
        "train.json",
    ]


def test_images_are_shared_among_two_files(folder):
    val = folder / "val.json"
    assert main(arguments(folder, "--val-output", str(val), "--val-fraction", "0.4")) == 0
    parts = [json.loads(path.read_text()) for path in (folder / "train.json", val)]
    assert [len(part["images"]) for part in parts] == [3, 2]
    # And so is a file in COCO's format.
    again = [str(folder / name) for name in ("a.json", "b.json")]
    options = ["--from", "coco", str(folder / "train.json"), "--output", again[0]]
    assert main([*options, "--val-output", again[1], "--seed", "3"]) == 0
    found = [json.loads((folder / name).read_text())["images"] for name in ("a.json", "b.json")]
    assert sorted(found[0] + found[1], key=lambda x: x["id"]) == parts[0]["images"]


def test_classes_are_numbered_as_in_another_file(folder):
    (folder / "classes.txt").write_text("spoon\nfork\ncup")
    (folder / "xml").mkdir()
    text = "<annotation><object><name>cup</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax>"
    text += "<ymax>9</ymax></bndbox></object></annotation>"
    (folder / "xml" / "2.xml").write_text(text)
    options = ["--from", "voc", str(folder / "xml"), "--images", str(folder / "images/train")]
    classes = ["--classes", str(folder / "classes.txt")]
    assert main([*options, *classes, "--output", str(folder / "a.json")]) == 0
    content = json.loads((folder / "a.json").read_text())
    assert content["annotations"][0]["category_id"] == 3
    assert [x["name"] for x in content["categories"]] == ["spoon", "fork", "cup"]


def test_lvis_and_labelme_are_converted_too(folder):
    image = {"id": 7, "coco_url": "http://x/train/1.jpg", "width": 40, "height": 30}
    box = {"id": 1, "image_id": 7, "category_id": 4, "bbox": [1, 1, 9, 9], "area": 81}
    content = {"images": [image], "annotations": [box], "categories": [{"id": 4, "name": "cup"}]}
    (folder / "lvis.json").write_text(json.dumps(content))
    options = ["--from", "lvis", str(folder / "lvis.json"), "--output", str(folder / "a.json")]
    assert main(options) == 0
    assert json.loads((folder / "a.json").read_text())["images"][0]["file_name"] == "train/1.jpg"

    shape = {"label": "cup", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    path = folder / "images/train/1.json"
    path.write_text(json.dumps({"imagePath": "1.jpg", "shapes": [shape]}))
    options = ["--from", "labelme", str(path.parent), "--output", str(folder / "b.json")]
    assert main(options) == 0
    [annotation] = json.loads((folder / "b.json").read_text())["annotations"]
    assert annotation["bbox"] == [1, 1, 8, 8]


def test_what_cannot_be_converted_gives_the_exit_code_2_and_no_file(folder, capsys):
    (folder / "labels/train/1.txt").write_text("7 0.5 0.5 0.1 0.1")
    assert main(arguments(folder)) == 2
    assert "1.txt': line 1 has the class '7'" in capsys.readouterr().err
    assert not list(folder.glob("train*"))
    (folder / "broken.json").write_text('{"images": [{"id": "a"}], "categories": [{"id": 1}]}')
    options = ["--from", "coco", str(folder / "broken.json"), "--output", str(folder / "a.json")]
    assert main(options) == 2
    assert "image ids that are no integers" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda a, f: [*a[:2], "nowhere", *a[3:]], "no such folder: nowhere"),
        (lambda a, f: ["--from", "coco", *a[2:]], "no such file"),
        (lambda a, f: [*a, "--val-fraction", "1"], "--val-fraction 1.0"),
        (lambda a, f: [*a, "--seed", "-1"], "--seed -1"),
        (lambda a, f: [*a, "--classes", "nowhere.txt"], "no such file: nowhere.txt"),
        (lambda a, f: [*a, "--images", "nowhere"], "no such folder: nowhere"),
        (lambda a, f: [*a, "--val-output", a[-1]], "are the same file"),
        (lambda a, f: [*a, "--output", str(f / "data.yaml")], "exists: delete it"),
        (lambda a, f: [*a, "--output", "nowhere/a.json"], "no such folder: nowhere"),
        (
            lambda a, f: ["--from", "coco", str(f / "data.yaml"), *a[3:]],
            "takes images and classes from the file",
        ),
    ],
)
def test_bad_usage_is_named(folder, change, reason, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(change(arguments(folder), folder))
    assert reason in capsys.readouterr().err
