"""Toy scenes: a small dataset, drawn instead of downloaded, in the layout that own data needs.

    toy_scenes/
      annotations/instances_train.json   COCO's format: images, categories, annotations
      annotations/instances_val.json
      train/000001.png, ...              images
      val/000001.png, ...
      stuff_train/000001.png, ...        one label map for each image, of its name and size
      stuff_val/000001.png, ...
      annotations/panoptic_train.json    COCO's panoptic format: things and stuff as segments
      annotations/panoptic_val.json
      panoptic_train/000001.png, ...     the id of each pixel's segment, as a colour
      panoptic_val/000001.png, ...

Five classes of things lie on four classes of stuff. There are only three outlines, and which class
an outline is depends on the stuff that it lies on, so a model has to look at the surroundings:

    outline     on grass or sand    on water    in the sky
    disc        ball                buoy        -
    triangle    tent                sail        -
    diamond     -                   -           kite

Colours, patterns and sizes of a ball and a buoy are drawn from the same distribution; so are those
of a tent and a sail. Sky and water can have the same blue, and differ in texture and place.

Annotations. Masks are of the visible pixels, as in COCO: what another thing or the border hides is
not part of them, and a mask in several pieces has several polygons. Some images hold a crowd: many
small things of one class with a single annotation, `iscrowd` 1, whose mask is run-length encoded.
Some images have no annotation at all. `visible_fraction`, which COCO does not have, says how much
of a thing the others leave visible.

Label maps. 8-bit PNG; a pixel's value is the label of what is visible there:

    0 ball, 1 buoy, 2 tent, 3 sail, 4 kite, 5 sky, 6 grass, 7 sand, 8 water, 255 ignored (crowds)

so a class of things has the same number as in the model (COCO's category id minus one).

Panoptic annotations. Every pixel belongs to a segment: a thing, a crowd, or all of one kind of
stuff in the image. Category ids are the labels plus one, 6 to 9 are stuff.
"""

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
from detectron2.data import MetadataCatalog
from iopath.common.file_io import file_lock
from PIL import Image

from ..checks import DatasetError
from ..datasets.coco_json import register_coco_json
from .annotations import (
    instance_annotation,
    panoptic_annotation,
    panoptic_categories,
    thing_categories,
)
from .classes import COLORS, IGNORE_LABEL, SEMANTIC_CLASSES, STUFF_LABELS, THING_CLASSES
from .scene import Scene

logger = logging.getLogger(__name__)

# Raise this with every change of the scenes, so that sets drawn before are drawn again.
_VERSION = 4
_MARKER = "toy_scenes.json"
# Place in a split -> number of the scene, where they differ. Scene 0 is empty, and people look at
# the first image to evaluate on.
_ORDER = {"train": {}, "val": {0: 2, 2: 0}}


def register_toy_scenes(root: str, name: str = "toy_scenes", **drawing) -> None:
    """Register `<name>_train` and `<name>_val`, which are drawn when they are first used.

    Args:
        root: the folder to draw them into.
        name: what the names of the two splits start with.
        drawing: arguments for `draw_toy_scenes`, e.g. `num_train`.
    """
    for split in ("train", "val"):
        register_coco_json(
            f"{name}_{split}",
            os.path.join(root, "annotations", f"instances_{split}.json"),
            os.path.join(root, split),
            os.path.join(root, f"stuff_{split}"),
            stuff_classes=SEMANTIC_CLASSES,
            stuff_labels=STUFF_LABELS,
            stuff_dataset_id_to_contiguous_id={
                label + 1: label for label in range(len(SEMANTIC_CLASSES))
            },
            panoptic_json=os.path.join(root, "annotations", f"panoptic_{split}.json"),
            panoptic_root=os.path.join(root, f"panoptic_{split}"),
            ignore_label=IGNORE_LABEL,
            prepare=partial(draw_toy_scenes, root, **drawing),
        )
        MetadataCatalog.get(f"{name}_{split}").set(
            thing_classes=list(THING_CLASSES),
            thing_colors=[COLORS[label] for label in THING_CLASSES],
            stuff_colors=[COLORS[label] for label in SEMANTIC_CLASSES],
        )


def draw_toy_scenes(
    root: str,
    *,
    num_train: int = 400,
    num_val: int = 60,
    image_size: tuple[int, int] = (128, 192),
    seed: int = 0,
) -> None:
    """Draw the dataset into the folder `root`, unless it is there already.

    The same arguments give the same files. A scene does not depend on how many there are. The first
    image to train on and the third to evaluate on have no annotation, the second of both has a
    crowd. If several processes start together, one of them draws and the others wait for it.

    Args:
        root: the folder to make. It appears at once and complete.
        num_train: number of images for training.
        num_val: number of images for validation.
        image_size: height and width in pixels; things are sized in proportion to the smaller.
        seed: another seed gives other scenes.

    Raises:
        DatasetError: `root` has files in it that are not toy scenes; they are left alone.
    """
    parameters = {
        "version": _VERSION,
        "num_train": num_train,
        "num_val": num_val,
        "image_size": list(image_size),
        "seed": seed,
    }
    root = os.path.abspath(root)
    # A dataset that is there needs no lock, so that it can be in a folder that is read-only.
    if _is_drawn(root, parameters):
        return
    with file_lock(root):
        if _is_drawn(root, parameters):
            return
        start = time.perf_counter()
        logger.info("Drawing %d + %d toy scenes into %s ...", num_train, num_val, root)
        with _replacement_of(root) as folder:
            _draw_split(folder, "train", num_train, image_size, [seed, 0])
            _draw_split(folder, "val", num_val, image_size, [seed, 1])
            with open(os.path.join(folder, "README.txt"), "w") as file:
                file.write(__doc__)
            _write_json(os.path.join(folder, _MARKER), parameters)
        logger.info("Drew them in %.1f s.", time.perf_counter() - start)


def _is_drawn(root: str, parameters: dict) -> bool:
    """Return whether `root` has the toy scenes of these parameters; False for others or none."""
    marker = os.path.join(root, _MARKER)
    if os.path.isfile(marker):
        with open(marker) as file:
            return json.load(file) == parameters
    if os.path.isdir(root) and os.listdir(root):
        raise DatasetError(
            f"'{root}' has files in it, but not '{_MARKER}', so they are not toy scenes. Move "
            "them away, or remove the folder to have toy scenes drawn there."
        )
    return False


@contextmanager
def _replacement_of(root: str) -> Iterator[str]:
    """Give an empty folder that takes the place of `root` in the end, unless there is an error."""
    # Next to its final place, because only within a file system is a rename atomic.
    folder = tempfile.mkdtemp(prefix=os.path.basename(root) + ".", dir=os.path.dirname(root))
    try:
        os.chmod(folder, 0o755)  # mkdtemp gives rights to the owner alone
        yield folder
        if os.path.isdir(root):
            # Only moved out of the way for now: removing it takes time.
            os.rename(root, os.path.join(folder, "outdated"))
        os.rename(folder, root)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(os.path.join(root, "outdated"), ignore_errors=True)


def _draw_split(
    root: str, split: str, num_images: int, image_size: tuple[int, int], seed: list[int]
) -> None:
    """Draw the images of a split into `root`, and write their annotations."""
    for folder in (split, f"stuff_{split}", f"panoptic_{split}", "annotations"):
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    images, instances, panoptic = [], [], []
    for index in range(num_images):
        scene = _draw_scene(_ORDER[split].get(index, index), image_size, seed)
        image_id, file_name = index + 1, f"{index + 1:06d}.png"
        panoptic_map, segments_info = panoptic_annotation(scene.segments(), image_size)
        for folder, pixels in (
            (split, scene.finished_image()),
            (f"stuff_{split}", scene.label_map()),
            (f"panoptic_{split}", panoptic_map),
        ):
            Image.fromarray(pixels).save(os.path.join(root, folder, file_name))
        height, width = image_size
        images.append({"id": image_id, "file_name": file_name, "height": height, "width": width})
        for thing in scene.things:
            ids = {"id": len(instances) + 1, "image_id": image_id}
            hidden = {"visible_fraction": round(thing.visible_fraction, 3)}
            instances.append(ids | instance_annotation(thing) | hidden)
        panoptic.append(
            {"image_id": image_id, "file_name": file_name, "segments_info": segments_info}
        )
    for kind, categories, annotations in (
        ("instances", thing_categories(), instances),
        ("panoptic", panoptic_categories(), panoptic),
    ):
        content = {
            "info": {"description": f"Toy scenes, {split}"},
            "images": images,
            "categories": categories,
            "annotations": annotations,
        }
        _write_json(os.path.join(root, "annotations", f"{kind}_{split}.json"), content)


def _draw_scene(index: int, image_size: tuple[int, int], seed: list[int]) -> Scene:
    """Return the scene of this number; 0 is empty, 1 has a crowd."""
    random = np.random.default_rng([*seed, index])
    if index < 2:
        empty, crowd = index == 0, index == 1
    else:
        empty, crowd = random.random() < 0.02, random.random() < 0.06
    scene = Scene(random, image_size)
    if crowd:
        scene.add_crowd()
    if not empty:
        scene.add_things(random.integers(3, 6))
    return scene


def _write_json(path: str, content: dict) -> None:
    with open(path, "w") as file:
        json.dump(content, file)
