import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools.coco import COCO

from hybrid_cascade.data import (
    DatasetError,
    check_dataset,
    draw_toy_scenes,
    register_toy_scenes,
    toy_scenes,
)

SMALL = {"num_train": 12, "num_val": 3}
TINY = {"num_train": 2, "num_val": 1, "image_size": (64, 96)}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("toy") / "scenes")
    register_toy_scenes(root, "small_toys", **SMALL)
    draw_toy_scenes(root, **SMALL)
    return root


def read_annotations(root, split):
    return COCO(os.path.join(root, "annotations", f"instances_{split}.json"))


def read_label_map(root, split, image):
    return np.asarray(Image.open(os.path.join(root, f"stuff_{split}", image["file_name"])))


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


@pytest.mark.parametrize("split", ["train", "val"])
def test_each_split_starts_with_an_empty_image_and_a_crowd(root, split):
    coco = read_annotations(root, split)
    assert coco.getAnnIds(imgIds=1) == []
    crowds = coco.loadAnns(coco.getAnnIds(imgIds=2, iscrowd=True))
    assert len(crowds) == 1
    assert isinstance(crowds[0]["segmentation"]["counts"], list)
    ignored = read_label_map(root, split, coco.imgs[2]) == 255
    np.testing.assert_array_equal(coco.annToMask(crowds[0]).astype(bool), ignored)


def test_polygons_are_the_visible_pixels_of_the_label_map(root):
    coco = read_annotations(root, "train")
    for image in coco.imgs.values():
        labels = read_label_map(root, "train", image)
        assert labels.shape == (image["height"], image["width"]) == (128, 192)
        instances_on_pixel = np.zeros(labels.shape, int)
        for annotation in coco.loadAnns(coco.getAnnIds(image["id"], iscrowd=False)):
            mask = coco.annToMask(annotation).astype(bool)
            instances_on_pixel += mask
            assert (labels[mask] == annotation["category_id"] - 1).mean() > 0.97
            assert abs(mask.sum() - annotation["area"]) < 0.03 * annotation["area"]
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            np.testing.assert_allclose(box, annotation["bbox"], atol=1)
        things = labels < 5
        assert (instances_on_pixel[things] > 0).sum() >= 0.97 * things.sum()
        assert (instances_on_pixel > 1).sum() <= 0.03 * things.sum()


def test_panoptic_segments_are_the_instances_and_the_stuff_of_the_label_map(root):
    with open(os.path.join(root, "annotations", "panoptic_train.json")) as file:
        content = json.load(file)
    coco = read_annotations(root, "train")
    assert content["images"] == coco.dataset["images"]
    assert [c["isthing"] for c in content["categories"]] == [1] * 5 + [0] * 4
    assert [c["name"] for c in content["categories"]] == list(toy_scenes.SEMANTIC_CLASSES)
    assert [x["image_id"] for x in content["annotations"]] == list(coco.imgs)
    for annotation in content["annotations"]:
        labels = read_label_map(root, "train", annotation)
        colors = Image.open(os.path.join(root, "panoptic_train", annotation["file_name"]))
        assert colors.mode == "RGB"
        ids = np.asarray(colors).astype(int) @ [1, 256, 256**2]
        assert np.unique(ids).tolist() == [s["id"] for s in annotation["segments_info"]]
        instances = coco.loadAnns(coco.getAnnIds(annotation["image_id"]))
        stuff = []
        for segment in annotation["segments_info"]:
            mask, label = ids == segment["id"], segment["category_id"] - 1
            assert mask.sum() == segment["area"]
            rows, columns = np.nonzero(mask)
            x, y = columns.min(), rows.min()
            assert segment["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
            assert (labels[mask] == (255 if segment["iscrowd"] else label)).all()
            if label >= 5:
                assert (labels[~mask] != label).all()
                stuff.append(label)
                continue
            fields = ("category_id", "iscrowd", "area", "bbox")
            (instance,) = [i for i in instances if all(i[k] == segment[k] for k in fields)]
            assert (coco.annToMask(instance).astype(bool) & mask).sum() > 0.95 * mask.sum()
        assert stuff == np.unique(labels[(labels >= 5) & (labels != 255)]).tolist()
        assert len(stuff) + len(instances) == len(annotation["segments_info"])


def test_the_stuff_around_a_thing_tells_its_class(root):
    home_labels = {"ball": (6, 7), "buoy": (8,), "tent": (6, 7), "sail": (8,), "kite": (5,)}
    coco = read_annotations(root, "train")
    seen = set()
    for annotation in coco.anns.values():
        name = coco.cats[annotation["category_id"]]["name"]
        labels = read_label_map(root, "train", coco.imgs[annotation["image_id"]])
        around = labels[cv2.dilate(coco.annToMask(annotation), np.ones((9, 9))) > 0]
        around = around[(around >= 5) & (around != 255)]
        if len(around) > 50:  # otherwise other things hide what is around it
            assert np.isin(around, home_labels[name]).mean() > 0.5
            seen.add(name)
    assert seen == set(home_labels)


def test_scenes_have_overlaps_truncation_and_a_range_of_sizes(root):
    coco = read_annotations(root, "train")
    things = [thing for thing in coco.anns.values() if not thing["iscrowd"]]
    sides = [thing["area"] ** 0.5 for thing in things]
    assert min(sides) < 20 and max(sides) > 40
    at_border = [thing for thing in things if min(thing["bbox"][:2]) == 0]
    assert at_border
    overlapping = 0
    for image in coco.imgs:
        annotations = coco.loadAnns(coco.getAnnIds(image, iscrowd=False))
        covered = np.zeros((128, 192), int)
        for annotation in annotations:
            covered += cv2.dilate(coco.annToMask(annotation), np.ones((3, 3)))
        overlapping += covered.max(initial=0) > 1
    assert overlapping >= 3


def test_a_set_that_is_there_is_kept_and_one_of_other_parameters_is_drawn_again(tmp_path):
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
    draw_split = toy_scenes._draw_split

    def interrupted(root, split, *args):
        draw_split(root, split, *args)
        if split == "val":
            raise KeyboardInterrupt

    monkeypatch.setattr(toy_scenes, "_draw_split", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_toy_scenes(str(tmp_path / "toys"), **TINY)
    assert os.listdir(tmp_path) == ["toys.lock"]


def test_of_two_that_start_together_one_draws_and_the_other_waits(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="hybrid_cascade")
    root = str(tmp_path / "toys")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: draw_toy_scenes(root, **TINY), range(2)))
    assert sum("Drawing" in message for message in caplog.messages) == 1
    with open(os.path.join(root, "annotations", "instances_train.json")) as file:
        assert len(json.load(file)["images"]) == 2


def test_ground_truth_as_prediction_gets_full_marks_from_coco_evaluator(root):
    dataset = DatasetCatalog.get("small_toys_val")
    check_dataset(dataset, "small_toys_val", num_classes=5, semantic_num_classes=9)
    evaluator = COCOEvaluator("small_toys_val", tasks=("bbox", "segm"), distributed=False)
    evaluator.reset()
    coco = read_annotations(root, "val")
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
