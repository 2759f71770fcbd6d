import json
import logging
import sys
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest

from hybrid_cascade.data import DatasetError, prepare_sbd

from .sbd_folder import SIZE, TRAIN, VAL, savemat, write_mat


def annotations(root, split):
    return json.loads((root / "annotations" / f"sbd_{split}.json").read_text())


def by_name(root, split):
    """Return {name: [(class, mask), ...]} as written."""
    content = annotations(root, split)
    images = {image["id"]: image for image in content["images"]}
    found = {Path(image["file_name"]).stem: [] for image in images.values()}
    for annotation in content["annotations"]:
        name = Path(images[annotation["image_id"]]["file_name"]).stem
        mask = mask_util.decode(annotation["segmentation"]).astype(bool)
        found[name].append((annotation["category_id"], mask))
    return found


def test_the_list_of_training_images_makes_the_split_and_all_others_are_val(sbd, caplog):
    root, _ = sbd
    with caplog.at_level(logging.WARNING):
        prepare_sbd(root)
    assert sorted(by_name(root, "train")) == sorted(TRAIN)
    assert sorted(by_name(root, "val")) == sorted(VAL)
    assert "train split has 3 images, the published one has 5623" in caplog.text
    assert "val split has 2 images, the published one has 5732" in caplog.text


def test_another_list_makes_another_split_of_images_that_are_converted_already(sbd):
    root, _ = sbd
    prepare_sbd(root)
    prepare_sbd(root, root / "val.txt")
    assert sorted(by_name(root, "train")) == sorted(TRAIN[1:])
    assert sorted(by_name(root, "val")) == sorted(TRAIN[:1] + VAL)


def test_masks_and_classes_are_those_of_the_files_pixel_by_pixel(sbd):
    root, truth = sbd
    prepare_sbd(root)
    found = by_name(root, "train") | by_name(root, "val")
    assert sum(map(len, found.values())) == 0 + 1 + 2 + 3 + 4
    for name, (labels, categories) in truth.items():
        assert [category for category, _ in found[name]] == list(categories)
        for number, (_, mask) in enumerate(found[name], start=1):
            assert np.array_equal(mask, labels == number)


def test_boxes_and_areas_are_those_of_the_masks(sbd):
    root, _ = sbd
    name = TRAIN[0]
    labels = np.zeros(SIZE, int)
    labels[3:6, 10:17] = 1
    write_mat(root / "inst" / f"{name}.mat", labels, [15])
    prepare_sbd(root)
    content = annotations(root, "train")
    image_id = next(i["id"] for i in content["images"] if i["file_name"] == f"{name}.jpg")
    (annotation,) = [a for a in content["annotations"] if a["image_id"] == image_id]
    assert annotation["bbox"] == [10, 3, 7, 3] and annotation["area"] == 21
    assert annotation["category_id"] == 15 and annotation["iscrowd"] == 0


def test_a_number_without_pixels_is_not_an_instance(sbd):
    root, _ = sbd
    labels = np.zeros(SIZE, int)
    labels[5, 5] = 2
    write_mat(root / "inst" / f"{TRAIN[0]}.mat", labels, [3, 4])
    prepare_sbd(root)
    assert [category for category, _ in by_name(root, "train")[TRAIN[0]]] == [4]


def test_missing_and_damaged_files_are_all_named_and_the_others_kept(sbd):
    root, truth = sbd
    missing, damaged = (root / "inst" / f"{name}.mat" for name in TRAIN[:2])
    good = {path: path.read_bytes() for path in (missing, damaged)}
    missing.unlink()
    damaged.write_bytes(good[damaged][: len(good[damaged]) // 2])
    with pytest.raises(DatasetError, match="2 of the 3 images of sbd_train") as error:
        prepare_sbd(root)
    assert f"'{missing}' does not exist" in str(error.value)
    assert f"'{damaged}' is damaged" in str(error.value)
    assert not (root / "annotations" / "sbd_train.json").exists()

    for path, content in good.items():
        path.write_bytes(content)
    (root / "inst" / f"{TRAIN[2]}.mat").unlink()  # has been read, is not needed again
    prepare_sbd(root)
    assert [len(by_name(root, "train")[name]) for name in TRAIN] == [
        len(truth[name][1]) for name in TRAIN
    ]


@pytest.mark.parametrize("categories", [[3], [3, 21], [0, 3]])
def test_labels_or_classes_out_of_range_count_as_damage(sbd, categories):
    root, _ = sbd
    labels = np.full(SIZE, 2)
    write_mat(root / "inst" / f"{VAL[0]}.mat", labels, categories)
    with pytest.raises(DatasetError, match=rf"{VAL[0]}.mat' is damaged or not an instance file"):
        prepare_sbd(root)


def test_a_file_without_instances_counts_as_damage(sbd):
    root, _ = sbd
    savemat(root / "inst" / f"{VAL[0]}.mat", {"GTcls": {"Segmentation": np.zeros(SIZE)}})
    with pytest.raises(DatasetError, match=rf"{VAL[0]}.mat' is damaged .*GTinst"):
        prepare_sbd(root)


def test_a_missing_image_is_named(sbd):
    root, _ = sbd
    (root / "img" / f"{VAL[0]}.jpg").unlink()
    with pytest.raises(DatasetError, match=rf"{VAL[0]}.jpg' does not exist"):
        prepare_sbd(root)


def test_a_line_that_an_interruption_cut_off_is_read_again(sbd, monkeypatch):
    root, truth = sbd
    *whole, cut = sorted(TRAIN)
    half = root / "annotations" / "sbd_train.jsonl"

    def interrupt():
        def stop(*args):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("hybrid_cascade.data.datasets.sbd_to_coco._to_coco", stop)
            with pytest.raises(KeyboardInterrupt):
                prepare_sbd(root)

    interrupt()
    half.write_text(half.read_text()[:-20])
    for name in whole:
        (root / "inst" / f"{name}.mat").unlink()
    interrupt()
    (root / "inst" / f"{cut}.mat").unlink()
    prepare_sbd(root)
    assert [len(by_name(root, "train")[name]) for name in TRAIN] == [
        len(truth[name][1]) for name in TRAIN
    ]
    assert not half.exists()


def test_files_that_are_written_already_are_not_written_again(sbd):
    root, _ = sbd
    prepare_sbd(root)
    for path in (root / "inst").iterdir():
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in (root / "annotations").iterdir()}
    prepare_sbd(root)
    assert before == {path: path.stat().st_mtime_ns for path in (root / "annotations").iterdir()}
    assert sorted(path.name for path in before) == ["sbd_train.json", "sbd_val.json"]


def test_a_list_that_leaves_a_split_empty_is_an_error(sbd):
    root, _ = sbd
    (root / "train_noval.txt").write_text("2012_004331\n")
    with pytest.raises(DatasetError, match="train split is empty.* 5 images .*names 0"):
        prepare_sbd(root)


def test_without_scipy_the_error_says_what_to_install(sbd, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match="pip install scipy"):
        prepare_sbd(sbd[0])
