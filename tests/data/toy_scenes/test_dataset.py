import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from hybrid_cascade.data import DatasetError, check_dataset, draw_toy_scenes
from hybrid_cascade.data.toy_scenes import dataset as toy_dataset

TINY = {"num_train": 2, "num_val": 1, "image_size": (64, 96)}


def contents(folder):
    return {
        os.path.relpath(os.path.join(parent, name), folder): open(
            os.path.join(parent, name), "rb"
        ).read()
        for parent, _, names in os.walk(folder)
        for name in names
    }


def test_a_seed_gives_the_same_bytes_again_and_another_seed_other_scenes(tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        draw_toy_scenes(str(tmp_path / name), seed=seed, **TINY)
    first, again, other = (contents(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    assert first["train/000002.png"] != other["train/000002.png"]
    assert first["train/000001.png"] != first["val/000001.png"]


@pytest.mark.parametrize("split, empty", [("train", 1), ("val", 3)])
def test_the_first_images_of_a_split_have_one_without_objects_and_one_with_a_crowd(
    drawn, split, empty
):
    coco = drawn.annotations(split)
    assert [i for i in (1, 2, 3) if not coco.getAnnIds(imgIds=i)] == [empty]
    crowds = coco.loadAnns(coco.getAnnIds(imgIds=2, iscrowd=True))
    assert len(crowds) == 1
    assert isinstance(crowds[0]["segmentation"]["counts"], list)
    ignored = drawn.label_map(split, coco.imgs[2]) == 255
    np.testing.assert_array_equal(coco.annToMask(crowds[0]).astype(bool), ignored)


def test_a_dataset_that_is_there_is_kept_and_one_of_other_parameters_is_drawn_again(tmp_path):
    root = str(tmp_path / "toys")
    draw_toy_scenes(root, **TINY)
    kept = tmp_path / "toys" / "kept.txt"
    kept.write_text("")
    draw_toy_scenes(root, **TINY)
    assert kept.exists()
    draw_toy_scenes(root, seed=1, **TINY)
    assert not kept.exists()
    assert "outdated" not in os.listdir(root)
    assert sorted(os.listdir(tmp_path)) == ["toys", "toys.lock"]


def test_files_that_are_not_toy_scenes_are_left_alone(tmp_path):
    own = tmp_path / "toys" / "thesis.tex"
    own.parent.mkdir()
    own.write_text("years of work")
    with pytest.raises(DatasetError, match="toys' has files in it"):
        draw_toy_scenes(str(own.parent), **TINY)
    assert own.read_text() == "years of work"


def test_an_interrupted_drawing_leaves_nothing_behind(tmp_path, monkeypatch):
    draw_split = toy_dataset._draw_split

    def interrupted(root, split, *args):
        draw_split(root, split, *args)
        if split == "val":
            raise KeyboardInterrupt

    monkeypatch.setattr(toy_dataset, "_draw_split", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_toy_scenes(str(tmp_path / "toys"), **TINY)
    assert os.listdir(tmp_path) == ["toys.lock"]


def test_of_two_threads_that_start_together_one_draws_and_the_other_waits(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hybrid_cascade")
    root = str(tmp_path / "toys")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: draw_toy_scenes(root, **TINY), range(2)))
    assert sum("Drawing" in message for message in caplog.messages) == 1
    with open(os.path.join(root, "annotations", "instances_train.json")) as file:
        assert len(json.load(file)["images"]) == 2


def test_ground_truth_as_prediction_gets_full_marks_from_coco_evaluator(drawn):
    dataset = DatasetCatalog.get("small_toys_val")
    check_dataset(dataset, "small_toys_val", num_classes=5, semantic_num_classes=9)
    evaluator = COCOEvaluator("small_toys_val", tasks=("bbox", "segm"), distributed=False)
    evaluator.reset()
    coco = drawn.annotations("val")
    for image in dataset:
        annotations = coco.loadAnns(coco.getAnnIds(image["image_id"], iscrowd=False))
        boxes = torch.tensor([ann["bbox"] for ann in annotations]).reshape(-1, 4).float()
        boxes[:, 2:] += boxes[:, :2]
        masks = np.array([coco.annToMask(ann) for ann in annotations]).astype(bool)
        instances = Instances((image["height"], image["width"]))
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.ones(len(annotations))
        instances.pred_classes = torch.tensor([ann["category_id"] - 1 for ann in annotations])
        instances.pred_masks = torch.from_numpy(masks.reshape(-1, *instances.image_size))
        evaluator.process([image], [{"instances": instances}])
    results = evaluator.evaluate()
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)


def test_built_in_names_are_registered_with_the_names_and_colors_of_all_labels():
    for name in ("toy_scenes_train", "toy_scenes_val"):
        assert name in DatasetCatalog
        metadata = MetadataCatalog.get(name)
        assert len(metadata.thing_classes) == len(metadata.thing_colors) == 5
        assert len(metadata.stuff_classes) == len(metadata.stuff_colors) == 9
        assert metadata.stuff_classes[:5] == metadata.thing_classes
        assert metadata.evaluator_type == "coco" and metadata.ignore_label == 255
