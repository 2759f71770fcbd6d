import cv2
import numpy as np
import pytest

from hybrid_cascade.data.toy_scenes.scene import Scene


def test_the_stuff_around_a_thing_tells_its_class(drawn):
    home_labels = {"ball": (6, 7), "buoy": (8,), "tent": (6, 7), "sail": (8,), "kite": (5,)}
    coco = drawn.annotations("train")
    seen = set()
    for annotation in coco.anns.values():
        name = coco.cats[annotation["category_id"]]["name"]
        labels = drawn.label_map("train", coco.imgs[annotation["image_id"]])
        around = labels[cv2.dilate(coco.annToMask(annotation), np.ones((9, 9))) > 0]
        around = around[(around >= 5) & (around != 255)]
        if len(around) > 50:  # otherwise other things hide what is around it
            assert np.isin(around, home_labels[name]).mean() > 0.5
            seen.add(name)
    assert seen == set(home_labels)


def test_scenes_have_overlaps_truncation_and_a_range_of_sizes(drawn):
    coco = drawn.annotations("train")
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


def test_the_visible_fraction_is_what_later_things_leave_of_a_thing():
    fractions, expected = [], []
    for seed in range(10):
        scene, whole = Scene(np.random.default_rng(seed), (128, 192)), []
        for _ in range(6):
            scene.add_things(1)
            if len(scene.things) > len(whole):
                whole.append(scene.things[-1].visible)
        fractions += [thing.visible_fraction for thing in scene.things]
        left = [mask & ~np.any(whole[i + 1 :], axis=0) for i, mask in enumerate(whole)]
        expected += [a.sum() / b.sum() for a, b in zip(left, whole, strict=True)]
    assert fractions == pytest.approx(expected)
    assert min(fractions) < 0.9 and max(fractions) == 1
