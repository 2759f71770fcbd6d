import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from PIL import Image

from hybrid_cascade.data import check_dataset, register_coco_stuff

NAMES = ("coco_2017_train_stuffthings", "coco_2017_val_stuffthings")


def test_labels_are_the_published_ids_minus_one():
    labels = MetadataCatalog.get("coco_2017_train_stuffthings").stuff_classes
    assert len(labels) == len(set(labels)) == 183
    published = {1: "person", 12: "street sign", 90: "toothbrush", 91: "hair brush"}
    published |= {92: "banner", 124: "grass", 157: "sky-other", 169: "tree", 182: "wood"}
    for category in COCO_CATEGORIES:
        if category["id"] <= 182:  # from there on, they are panoptic COCO's merged classes
            published[category["id"]] = category["name"]
    assert {index: labels[index - 1] for index in published} == published
    assert labels[182] == "unlabeled"


@pytest.mark.parametrize("name", NAMES)
def test_things_and_colors_are_those_of_coco(name):
    metadata, coco = MetadataCatalog.get(name), MetadataCatalog.get("coco_2017_val")
    assert metadata.thing_classes == coco.thing_classes
    assert metadata.evaluator_type == "coco" and metadata.ignore_label == 255
    assert len(metadata.stuff_colors) == 183
    assert metadata.stuff_colors[0] == metadata.thing_colors[0]


def test_instances_and_label_maps_are_loaded_from_the_documented_folders(tmp_path, monkeypatch):
    for name in NAMES:  # monkeypatch restores those of the real folder
        monkeypatch.delitem(DatasetCatalog.data, name)
        monkeypatch.delitem(MetadataCatalog.data, name)
    coco = tmp_path / "coco"
    for folder in ("annotations", "val2017", "stuffthingmaps/val2017"):
        (coco / folder).mkdir(parents=True)
    Image.new("RGB", (8, 6)).save(coco / "val2017" / "000000000139.jpg")
    Image.new("L", (8, 6), 181).save(coco / "stuffthingmaps" / "val2017" / "000000000139.png")
    content = {
        "images": [{"id": 139, "file_name": "000000000139.jpg", "width": 8, "height": 6}],
        "categories": [
            {"id": thing["id"], "name": thing["name"]}
            for thing in COCO_CATEGORIES
            if thing["isthing"]
        ],
        "annotations": [
            {"id": 1, "image_id": 139, "category_id": 90, "bbox": [1, 1, 4, 4], "iscrowd": 0}
        ],
    }
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(content))

    register_coco_stuff(str(tmp_path))
    dataset = DatasetCatalog.get("coco_2017_val_stuffthings")
    assert dataset[0]["annotations"][0]["category_id"] == 79
    assert dataset[0]["sem_seg_file_name"].endswith("stuffthingmaps/val2017/000000000139.png")
    check_dataset(dataset, "coco_2017_val_stuffthings", num_classes=80, semantic_num_classes=183)
