import logging
import random

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from hybrid_cascade.data import DatasetError
from hybrid_cascade.engine import evaluate
from tests.fuzz.datasets import CONFIGS, Oracle, make_content, prepare, register


@pytest.fixture(autouse=True)
def catalogs(monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "data", dict(DatasetCatalog.data))
    monkeypatch.setattr(MetadataCatalog, "data", dict(MetadataCatalog.data))


@pytest.fixture(params=CONFIGS, ids=["lazy", "yaml"])
def config(request, tmp_path):
    return request.param.replaced(output_dir=f"{tmp_path}/output")


def spoil(change):
    return lambda random, content, folder: change(content)


def change_box(content):
    content["annotations"][0]["bbox"][2] = -5


@pytest.mark.parametrize("use", ["train", "val", "eval_only"])
def test_faults_are_found_before_a_training_and_an_evaluation(config, tmp_path, use):
    with pytest.raises(DatasetError, match="boxes of negative width"):
        prepare(spoil(change_box), use, config, 0, tmp_path)


def test_evaluate_checks_its_data_by_itself(config, tmp_path):
    content = make_content(random.Random(0))
    content["annotations"][0]["bbox"][2] = -5
    register("val", content, tmp_path)
    with pytest.raises(DatasetError, match="boxes of negative width"):
        evaluate(config.cfg, Oracle(content))


def test_another_number_of_classes_is_found_before_an_evaluation(config, tmp_path):
    content = make_content(random.Random(0))
    register("val", content, tmp_path)
    model = Oracle(content)
    model.roi_heads.num_classes = 2
    with pytest.raises(DatasetError, match="has 3 classes of things"):
        evaluate(config.cfg, model)


def test_categories_in_another_order_than_in_training_are_found(config, tmp_path):
    def swap(content):
        first, second, _ = content["categories"]
        first["name"], second["name"] = second["name"], first["name"]

    with pytest.raises(DatasetError, match="'val' has other `thing_classes` than 'train'"):
        prepare(spoil(swap), "val", config, 0, tmp_path)


def test_faults_are_logged_on_request(config, tmp_path, caplog):
    config = config.replaced(data_faults="warn")
    prepare(spoil(change_box), "train", config, 0, tmp_path)
    assert "boxes of negative width" in caplog.text


def truncate(random, content, folder):
    path = folder / "images" / "3.png"
    path.write_bytes(path.read_bytes()[:500])


def test_all_pixels_are_read_on_request(config, tmp_path):
    config = config.replaced(check_images="decode")
    with pytest.raises(DatasetError, match=r"3\.png' cannot be read as an image"):
        prepare(truncate, "train", config, 0, tmp_path)


def test_a_training_skips_images_that_turn_unreadable_up_to_the_limit(config, tmp_path, caplog):
    job = prepare(lambda *_: None, "train", config.replaced(max_unreadable_images=1), 0, tmp_path)
    paths = [tmp_path / "train" / "images" / f"{i}.png" for i in (3, 5, 8)]
    paths[0].write_text("no image")
    loader = job.trainer._trainer._data_loader_iter
    with caplog.at_level(logging.WARNING):
        names = {next(loader)[0]["file_name"] for _ in range(9)}
    assert names == {str(path) for path in paths[1:]}
    assert caplog.text.count("3.png' or") == 1
    paths[1].write_text("no image")
    key = config.KEYS["max_unreadable_images"]
    with pytest.raises(DatasetError, match=rf"5\.png' .*after 1 other files.*{key}"):
        for _ in range(9):
            next(loader)


@pytest.mark.parametrize(
    ("name", "value"),
    [("check_images", "all"), ("data_faults", "ignore"), ("max_unreadable_images", -1)],
)
def test_wrong_values_of_the_options_are_named(config, tmp_path, name, value):
    config = config.replaced(**{name: value})
    with pytest.raises(ValueError, match=f"{config.KEYS[name]} is {value!r}"):
        prepare(lambda *_: None, "train", config, 0, tmp_path)


def test_run_lengths_for_a_mapper_of_polygons_are_found(config, tmp_path):
    def encode(content):
        counts = [10, 64 * 48 - 10]
        content["annotations"][0]["segmentation"] = {"size": [48, 64], "counts": counts}

    with pytest.raises(DatasetError, match="instance_mask_format=bitmask.*INPUT.MASK_FORMAT"):
        prepare(spoil(encode), "train", config, 0, tmp_path)


def test_a_training_set_without_objects_is_named(config, tmp_path):
    with pytest.raises(DatasetError, match="'train' has no image to train on.*filter_empty"):
        prepare(spoil(lambda c: c["annotations"].clear()), "train", config, 0, tmp_path)


def test_an_image_that_is_another_one_now_is_no_unreadable_one(config, tmp_path):
    job = prepare(lambda *_: None, "train", config, 0, tmp_path)
    for path in (tmp_path / "train" / "images").iterdir():
        Image.new("RGB", (5, 5)).save(path)
    with pytest.raises(ValueError, match="Mismatched image shape"):
        next(job.trainer._trainer._data_loader_iter)
