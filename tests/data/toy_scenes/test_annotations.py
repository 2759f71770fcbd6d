import json
import os

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from hybrid_cascade.data.toy_scenes import SEMANTIC_CLASSES
from hybrid_cascade.data.toy_scenes.annotations import polygons_fit, run_lengths


def test_polygons_are_the_visible_pixels_of_the_label_map(drawn):
    coco = drawn.annotations("train")
    for image in coco.imgs.values():
        labels = drawn.label_map("train", image)
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


def test_panoptic_segments_are_the_instances_and_the_stuff_of_the_label_map(drawn):
    with open(os.path.join(drawn.root, "annotations", "panoptic_train.json")) as file:
        content = json.load(file)
    coco = drawn.annotations("train")
    assert content["images"] == coco.dataset["images"]
    assert [c["isthing"] for c in content["categories"]] == [1] * 5 + [0] * 4
    assert [c["name"] for c in content["categories"]] == list(SEMANTIC_CLASSES)
    assert [x["image_id"] for x in content["annotations"]] == list(coco.imgs)
    for annotation in content["annotations"]:
        labels = drawn.label_map("train", annotation)
        colors = Image.open(os.path.join(drawn.root, "panoptic_train", annotation["file_name"]))
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


@pytest.mark.parametrize("corners", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_run_lengths_decode_to_the_mask(corners):
    mask = np.random.default_rng(0).random((7, 9)) > 0.5
    mask[0, 0], mask[-1, -1] = corners
    encoded = run_lengths(mask)
    assert encoded["size"] == [7, 9] and sum(encoded["counts"]) == 7 * 9
    decoded = mask_util.decode(mask_util.frPyObjects(encoded, 7, 9))
    np.testing.assert_array_equal(decoded, mask)


def test_polygons_fit_neither_masks_with_holes_nor_small_ones():
    mask = np.zeros((40, 40), bool)
    mask[5:30, 5:30] = True
    assert polygons_fit(mask)
    mask[2:4, 33:39] = mask[33:39, 33:39] = True
    assert polygons_fit(mask)  # pieces are one polygon each
    mask[10:20, 10:20] = False
    assert not polygons_fit(mask)
    small = np.zeros((40, 40), bool)
    assert not polygons_fit(small)
    small[3:8, 3:10] = True
    assert not polygons_fit(small)
