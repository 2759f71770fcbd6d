import json
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from hybrid_cascade.commands import report
from hybrid_cascade.data import register_toy_scenes
from hybrid_cascade.engine import build_model, load_config

from ..report.random_results import random_results
from ..report.read_page import Page

HTC = Path(__file__).parents[2] / "configs" / "quick_start" / "htc_toy.py"

FEW_BOXES = ["train.device=cpu", "model.proposal_generator.post_nms_topk=[20,10]"]


@pytest.fixture
def files(tmp_path):
    dataset, detections = random_results()
    paths = {"annotations": tmp_path / "val.json", "results": tmp_path / "found.json"}
    for path, value in zip(paths.values(), (dataset, detections), strict=True):
        path.write_text(json.dumps(value))
    return paths


def options(**values):
    return [x for key, value in values.items() for x in (f"--{key}", str(value))]


def test_results_give_a_page_without_a_model(files, tmp_path, capsys):
    output = tmp_path / "folder" / "page.html"
    assert report.main(options(**files, output=output, images=3)) == 0
    data = Page(output).data
    assert data["title"] == "val"
    assert set(data["tasks"]) == {"bbox", "segm"}
    assert len(data["gallery"]["images"]) == 3
    assert data["sources"] == {key: str(path) for key, path in files.items()}
    assert f"{output}: " in capsys.readouterr().err


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "toy_scenes"
    register_toy_scenes(str(root), "toys_of_pages", num_train=1, num_val=3)
    DatasetCatalog.get("toys_of_pages_val")  # draws them
    return "toys_of_pages_val"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pth"
    model = build_model(load_config(str(HTC), ["train.device=cpu"]))
    torch.save({"model": model.state_dict()}, path)
    (path.parent / "metrics.json").write_text('{"iteration": 3, "total_loss": 2.5}')
    return path


def of_model(weights):
    return {"config-file": HTC, "weights": weights}


def test_a_model_finds_the_objects_itself(name, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # By its name: there is no such file in this folder.
    arguments = options(**of_model(weights) | {"config-file": "quick_start/htc_toy.py"}, images=1)
    overrides = [*FEW_BOXES, f"dataloader.test.dataset.names={name}"]
    assert report.main([*arguments, "--stage-images", "2", *overrides]) == 0
    data = Page(tmp_path / "report.html").data
    assert data["title"] == name
    assert data["counts"]["detections"] > 0
    assert data["stages"]["images"] == 2
    assert len(data["gallery"]["images"][0]["frames"]) == 3
    assert data["training"]
    # Nothing else is left.
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_classes_of_the_checkpoint_in_another_order_are_an_error(name, weights, tmp_path, capsys):
    names = MetadataCatalog.get(name).thing_classes
    content = torch.load(weights, weights_only=True)
    trained_with = {"thing_classes": names[::-1]}
    torch.save({**content, "trained_with": trained_with}, tmp_path / "model.pth")
    arguments = options(**of_model(tmp_path / "model.pth"), output=tmp_path / "page.html")
    with pytest.raises(SystemExit) as stopped:
        report.main([*arguments, *FEW_BOXES, f"dataloader.test.dataset.names={name}"])
    assert stopped.value.code == 2
    assert "other `thing_classes` than the training of the checkpoint" in capsys.readouterr().err


def test_a_model_looks_at_other_annotations_and_takes_results_for_its_own(
    name,
    weights,
    tmp_path,
):
    image = DatasetCatalog.get(name)[1]
    dataset = json.loads(Path(MetadataCatalog.get(name).json_file).read_text())
    dataset["images"] = [x for x in dataset["images"] if x["id"] == image["image_id"]]
    dataset["annotations"] = [
        a for a in dataset["annotations"] if a["image_id"] == image["image_id"]
    ]
    annotations, results = tmp_path / "part.json", tmp_path / "found.json"
    annotations.write_text(json.dumps(dataset))
    results.write_text("[]")
    root = image["file_name"].rpartition("/")[0]
    given = options(annotations=annotations, results=results, output=tmp_path / "page.html")
    arguments = [*options(**of_model(weights)), "--image-root", root, *given, *FEW_BOXES]
    assert report.main(arguments) == 0
    data = Page(tmp_path / "page.html").data
    assert data["counts"]["images"] == 1
    assert data["counts"]["detections"] == 0
    frames = data["gallery"]["images"][0]["frames"]
    assert [frame["title"] for frame in frames][-1] == "results"
    assert frames[0]["detections"] and not frames[-1]["detections"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "give --annotations and --results, or"),
        ("--annotations {val}", "give --annotations and --results, or"),
        ("--config-file {val}", "come together"),
        ("--annotations {val} --results nowhere.json", "no such file: nowhere.json"),
        ("--annotations {val} --results {val}", "is no results file"),
        ("--annotations {val} --results {found} --images -1", "--images -1"),
        ("--annotations {val} --results {found} --stage-images 1", "needs a model"),
        ("--annotations {val} --results {found} --image-root nowhere", "no such folder: nowhere"),
        ("--annotations {val} --results {found} a=1", "'a=1': overrides"),
        ("--config-file {val} --weights {val} --annotations {val}", "need --image-root"),
        ("--config-file {val} --weights {val} --image-root .", "--image-root is for"),
        ("--config-file {val} --weights {val}", "neither a LazyConfig"),
        ("--config-file nowhere.py --weights {val}", "no config file 'nowhere.py'"),
    ],
)
def test_bad_usage_is_an_error_with_exit_code_2(files, capsys, arguments, message):
    paths = {"val": files["annotations"], "found": files["results"]}
    with pytest.raises(SystemExit) as stopped:
        report.main([part.format(**paths) for part in arguments.split()])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
