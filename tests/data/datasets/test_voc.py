from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from hybrid_cascade.data import DatasetError, register_voc_without_sbd
from hybrid_cascade.data.datasets.voc import NAME

XML = """<annotation><size><width>40</width><height>30</height></size><object><name>{name}</name>
<bndbox><xmin>1</xmin><ymin>3</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object></annotation>"""


def write_voc(folder: Path, classes: dict[str, str], split: str = "trainval") -> Path:
    """Write images of one object each in VOC's layout."""
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(classes) + "\n")
    for image_id, name in classes.items():
        (folder / "Annotations" / f"{image_id}.xml").write_text(XML.format(name=name))
        Image.new("RGB", (40, 30), (90, 20, 60)).save(folder / "JPEGImages" / f"{image_id}.jpg")
    return folder


@pytest.fixture
def folders(tmp_path, monkeypatch):
    voc, sbd = tmp_path / "VOC2012", tmp_path / "sbd"
    write_voc(voc, {"2008_1": "cat", "2008_2": "dog", "2008_3": "person", "2008_4": "car"})
    sbd.mkdir()
    (sbd / "train.txt").write_text("2008_1\n")
    (sbd / "val.txt").write_text("2008_3\n2007_9\n")
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.delitem(catalog.data, NAME)
    register_voc_without_sbd(voc, sbd)
    return voc, sbd


def test_images_of_sbd_are_left_out(folders):
    images = DatasetCatalog.get(NAME)
    assert [image["image_id"] for image in images] == ["2008_2", "2008_4"]
    [annotation] = images[0]["annotations"]
    assert MetadataCatalog.get(NAME).thing_classes[annotation["category_id"]] == "dog"
    assert annotation["bbox"] == [0, 2, 20, 30] and "segmentation" not in annotation


@pytest.mark.parametrize("path", ["VOC2012/ImageSets/Main/trainval.txt", "sbd/val.txt"])
def test_a_missing_list_is_named(folders, path):
    (folders[0].parent / path).unlink()
    with pytest.raises(DatasetError, match=f"{path}' does not exist. docs/sbd.md"):
        DatasetCatalog.get(NAME)
