"""Toy scenes: a small data set, drawn instead of downloaded, in the layout that own data needs.

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
Some images have no annotation at all.

Label maps. 8-bit PNG; a pixel's value is the label of what is visible there:

    0 ball, 1 buoy, 2 tent, 3 sail, 4 kite, 5 sky, 6 grass, 7 sand, 8 water, 255 ignored (crowds)

so a class of things has the same number as in the model (COCO's category id minus one).

Panoptic annotations. Every pixel belongs to a segment: a thing, a crowd, or all of one kind of
stuff in the image. Category ids are the labels plus one, 6 to 9 are stuff.
"""

import json
import logging
import math
import os
import shutil
import tempfile
import time
from dataclasses import dataclass

import cv2
import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import MetadataCatalog
from iopath.common.file_io import file_lock
from PIL import Image

from ..checks import DatasetError
from ..datasets.coco_json import register_coco_json

logger = logging.getLogger(__name__)

THING_CLASSES = ("ball", "buoy", "tent", "sail", "kite")
STUFF_CLASSES = ("sky", "grass", "sand", "water")
# Label maps number the things first, then the stuff.
SEMANTIC_CLASSES = THING_CLASSES + STUFF_CLASSES
IGNORE_LABEL = 255
COLORS = {
    "ball": (220, 60, 50),
    "buoy": (250, 140, 20),
    "tent": (150, 70, 190),
    "sail": (245, 225, 60),
    "kite": (230, 80, 160),
    "sky": (150, 200, 240),
    "grass": (80, 150, 60),
    "sand": (220, 195, 140),
    "water": (40, 90, 150),
}

_SKY, _GRASS, _SAND, _WATER = range(len(STUFF_CLASSES))
# The rule of the scenes: each class is an outline on some stuff.
_LAND = (_GRASS, _SAND)
_OUTLINE_AND_HOMES = {
    "ball": ("disc", _LAND),
    "buoy": ("disc", (_WATER,)),
    "tent": ("triangle", _LAND),
    "sail": ("triangle", (_WATER,)),
    "kite": ("diamond", (_SKY,)),
}
_ANGLES = 2 * np.pi * np.arange(40) / 40
# Points of the outlines around the origin, (points, 2) as x, y; y points down.
_OUTLINES = {
    "disc": np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1),
    "triangle": np.array([[0.0, -1.15], [1.0, 0.85], [-1.0, 0.85]]),
    "diamond": np.array([[0.0, -1.0], [0.75, -0.3], [0.0, 1.2], [-0.75, -0.3]]),
}

# To be raised with every change of what is drawn, so that sets drawn before are drawn again. (Sets
# from before there were panoptic files have the same scenes, and stay as they are.)
_VERSION = 2
_MARKER = "toy_scenes.json"


def register_toy_scenes(root: str, name: str = "toy_scenes", **drawing) -> None:
    """Registers `<name>_train` and `<name>_val`, which are drawn at their first use.

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
            stuff_labels=range(len(THING_CLASSES), len(SEMANTIC_CLASSES)),
            stuff_dataset_id_to_contiguous_id={
                label + 1: label for label in range(len(SEMANTIC_CLASSES))
            },
            panoptic_json=os.path.join(root, "annotations", f"panoptic_{split}.json"),
            panoptic_root=os.path.join(root, f"panoptic_{split}"),
            ignore_label=IGNORE_LABEL,
            prepare=lambda: draw_toy_scenes(root, **drawing),
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
    """Draws the set into the folder `root`, unless it is there already.

    The same arguments give the same files. A scene does not depend on how many there are. The first
    image of each split has no annotation, the second has a crowd. Processes that start together
    wait for the one that draws.

    Args:
        root: the folder to make. It appears at once and complete.
        num_train: number of images for training.
        num_val: number of images for validation.
        image_size: height and width in pixels; things are sized in proportion to the smaller.
        seed: another seed, other scenes.

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
    # The first look needs no lock, so a set that is there can be in a folder that is read-only.
    if _is_drawn(root, parameters):
        return
    with file_lock(root):
        if _is_drawn(root, parameters):
            return
        start = time.perf_counter()
        logger.info("Drawing %d + %d toy scenes into %s ...", num_train, num_val, root)
        # Next to its final place, because only within a file system is a rename atomic.
        drawn = tempfile.mkdtemp(prefix=os.path.basename(root) + ".", dir=os.path.dirname(root))
        try:
            os.chmod(drawn, 0o755)  # mkdtemp's are for their owner alone
            _draw_split(drawn, "train", num_train, image_size, [seed, 0])
            _draw_split(drawn, "val", num_val, image_size, [seed, 1])
            with open(os.path.join(drawn, "README.txt"), "w") as file:
                file.write(__doc__)
            with open(os.path.join(drawn, _MARKER), "w") as file:
                json.dump(parameters, file)
            if os.path.isdir(root):
                # Moved out of the way before it is removed, for the same reason.
                os.rename(root, os.path.join(drawn, "outdated"))
            os.rename(drawn, root)
        except BaseException:
            shutil.rmtree(drawn, ignore_errors=True)
            raise
        shutil.rmtree(os.path.join(root, "outdated"), ignore_errors=True)
        logger.info("Drew them in %.1f s.", time.perf_counter() - start)


def _is_drawn(root: str, parameters: dict) -> bool:
    """Whether `root` has the toy scenes of these parameters; False if it has others or is empty."""
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


def _draw_split(
    root: str, split: str, num_images: int, image_size: tuple[int, int], seed: list[int]
) -> None:
    image_folder = os.path.join(root, split)
    label_folder = os.path.join(root, f"stuff_{split}")
    panoptic_folder = os.path.join(root, f"panoptic_{split}")
    annotation_folder = os.path.join(root, "annotations")
    for folder in (image_folder, label_folder, panoptic_folder, annotation_folder):
        os.makedirs(folder, exist_ok=True)
    images, annotations, panoptic_annotations = [], [], []
    for index in range(num_images):
        random = np.random.default_rng([*seed, index])
        if index < 2:
            empty, crowd = index == 0, index == 1
        else:
            empty, crowd = random.random() < 0.02, random.random() < 0.06
        scene = _Scene(random, image_size)
        if crowd:
            scene.add_crowd()
        if not empty:
            scene.add_things(random.integers(3, 6))

        image_id, file_name = index + 1, f"{index + 1:06d}.png"
        Image.fromarray(scene.finished_image()).save(os.path.join(image_folder, file_name))
        Image.fromarray(scene.label_map()).save(os.path.join(label_folder, file_name))
        panoptic_map, segments = scene.panoptic_map()
        Image.fromarray(panoptic_map).save(os.path.join(panoptic_folder, file_name))
        panoptic_annotations.append(
            {"image_id": image_id, "file_name": file_name, "segments_info": segments}
        )
        images.append(
            {
                "id": image_id,
                "file_name": file_name,
                "height": image_size[0],
                "width": image_size[1],
            }
        )
        for thing in scene.things:
            ids = {"id": len(annotations) + 1, "image_id": image_id}
            annotations.append(ids | thing.to_coco())
    things = [
        {"id": label + 1, "name": name, "supercategory": _OUTLINE_AND_HOMES[name][0]}
        for label, name in enumerate(THING_CLASSES)
    ]
    stuff = [
        {"id": label + 1, "name": name, "supercategory": "stuff"}
        for label, name in enumerate(STUFF_CLASSES, start=len(THING_CLASSES))
    ]
    panoptic_categories = [x | {"isthing": 1} for x in things] + [x | {"isthing": 0} for x in stuff]
    for kind, categories, of_kind in (
        ("instances", things, annotations),
        ("panoptic", panoptic_categories, panoptic_annotations),
    ):
        content = {
            "info": {"description": f"Toy scenes, {split}"},
            "images": images,
            "categories": categories,
            "annotations": of_kind,
        }
        with open(os.path.join(annotation_folder, f"{kind}_{split}.json"), "w") as file:
            json.dump(content, file)


@dataclass
class _Outline:
    """Where a thing is to be drawn.

    whole_area: in pixels, with what is outside of the image.
    coverage: (height, width) in 0 to 1, how much of each pixel is inside.
    to_unit: (2, 2), takes offsets from the center to where they are in the unit outline.
    """

    kind: str
    center: tuple[float, float]
    whole_area: float
    coverage: np.ndarray
    to_unit: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(height, width) bool."""
        return self.coverage >= 0.5


@dataclass
class _Thing:
    """A drawn thing, or a crowd of them.

    visible: (height, width) bool, the pixels that nothing drawn later covers.
    whole_area: pixels that were visible when it had just been drawn.
    """

    label: int
    visible: np.ndarray
    whole_area: int
    is_crowd: bool = False

    def to_coco(self) -> dict:
        """The annotation, without its ids."""
        encode = _run_lengths if self.is_crowd else _polygons
        segment = _segment(self.visible, self.label, self.is_crowd)
        return segment | {"segmentation": encode(self.visible)}


def _segment(mask: np.ndarray, label: int, is_crowd: bool) -> dict:
    """What instances and panoptic annotations have in common."""
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    return {
        "category_id": label + 1,
        "iscrowd": int(is_crowd),
        "area": len(rows),
        "bbox": [x, y, int(columns.max()) + 1 - x, int(rows.max()) + 1 - y],
    }


class _Scene:
    """One image in the making: stuff first, then things, each over the ones before."""

    def __init__(self, random: np.random.Generator, image_size: tuple[int, int]) -> None:
        self.random = random
        self.size = image_size
        self.stuff = _stuff_regions(random, *image_size)
        self.image = _stuff_colors(random, self.stuff)
        self.things: list[_Thing] = []
        # Sizes are written for an image of 128 pixels' height.
        self.scale = min(image_size) / 128

    def add_things(self, number: int) -> None:
        """Adds up to `number` things; fewer where there is no more place for them."""
        homes = {label: self._home_of(label) for label in range(len(THING_CLASSES))}
        labels = [label for label, home in homes.items() if home.mean() > 0.1]
        for _ in range(number):
            # The class is chosen before the place, so that each has its share.
            label = int(self.random.choice(labels))
            home = homes[label]
            for _ in range(40):
                radius = self.scale * math.exp(self.random.uniform(math.log(14), math.log(42)))
                center = self._pick_center(home, radius)
                if center is not None and self._try_thing(label, home, radius, center):
                    break

    def add_crowd(self) -> None:
        """Adds many small balls or buoys, close together, annotated as one crowd."""
        depths = {}
        for label in (THING_CLASSES.index("ball"), THING_CLASSES.index("buoy")):
            # The distance to other stuff and to the border says how much place there is.
            framed = np.pad(self._home_of(label).astype(np.uint8), 1)
            depths[label] = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
        label, depth = max(depths.items(), key=lambda item: item[1].max())
        center_y, center_x = np.unravel_index(depth.argmax(), depth.shape)
        spread = min(depth.max(), 24 * self.scale)
        covered = np.zeros(self.size, np.uint8)
        for _ in range(16):
            x, y = (center_x, center_y) + self.random.uniform(-1, 1, 2) * (spread, 0.5 * spread)
            radius = self.scale * self.random.uniform(3.5, 5.5)
            outline = self._random_outline("disc", radius, (x, y))
            self._paint(outline)
            covered |= outline.mask
        # Annotators do not leave out the gaps.
        covered = cv2.morphologyEx(covered, cv2.MORPH_CLOSE, np.ones((5, 5))).astype(bool)
        self.things.append(_Thing(label, covered, int(covered.sum()), is_crowd=True))

    def label_map(self) -> np.ndarray:
        """(height, width) uint8, as the module describes."""
        labels = (self.stuff + len(THING_CLASSES)).astype(np.uint8)
        for thing in self.things:
            labels[thing.visible] = IGNORE_LABEL if thing.is_crowd else thing.label
        return labels

    def panoptic_map(self) -> tuple[np.ndarray, list[dict]]:
        """(height, width, 3) uint8, segment ids as COCO's colours, and the `segments_info`."""
        labels = self.label_map()
        regions = [(thing.visible, thing.label, thing.is_crowd) for thing in self.things]
        for label in range(len(THING_CLASSES), len(SEMANTIC_CLASSES)):
            regions.append((labels == label, label, False))
        ids, segments = np.zeros(self.size, np.int32), []
        for mask, label, is_crowd in regions:
            if mask.any():
                segments.append({"id": len(segments) + 1} | _segment(mask, label, is_crowd))
                ids[mask] = len(segments)
        # id = R + 256 G + 256² B
        return np.stack([ids, ids >> 8, ids >> 16], axis=2).astype(np.uint8), segments

    def finished_image(self) -> np.ndarray:
        """(height, width, 3) uint8, RGB, with the blur and the noise of a camera."""
        image = cv2.GaussianBlur(self.image, (0, 0), 0.5)
        image += self.random.normal(0, 5, image.shape)
        return image.clip(0, 255).round().astype(np.uint8)

    def _home_of(self, label: int) -> np.ndarray:
        """(height, width) bool, the stuff that a class of things lies on."""
        return np.isin(self.stuff, _OUTLINE_AND_HOMES[THING_CLASSES[label]][1])

    def _pick_center(self, home: np.ndarray, radius: float) -> tuple[float, float] | None:
        """A place (x, y) in the given stuff; often next to another thing, to have overlaps."""
        if self.things and self.random.random() < 0.3:
            other = self.things[self.random.integers(len(self.things))]
            rows, columns = np.nonzero(other.visible)
            angle = self.random.uniform(0, 2 * np.pi)
            distance = radius + 0.45 * math.sqrt(other.whole_area)
            x = columns.mean() + distance * math.cos(angle)
            y = rows.mean() + distance * math.sin(angle)
            inside = 0 <= x < self.size[1] and 0 <= y < self.size[0]
            return (x, y) if inside and home[int(y), int(x)] else None
        places = np.flatnonzero(home)
        y, x = divmod(int(self.random.choice(places)), self.size[1])
        return x + 0.5, y + 0.5

    def _random_outline(self, kind: str, radius: float, center: tuple[float, float]) -> _Outline:
        """Turned and stretched at random."""
        most = {"disc": np.pi, "triangle": 0.3, "diamond": 0.8}[kind]
        turn = self.random.uniform(-most, most)
        stretch = self.random.uniform(0.85, 1.18)
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        matrix = rotation @ np.diag([radius * stretch, radius / stretch])
        points = (_OUTLINES[kind] @ matrix.T + center).astype(np.float32)
        zoom = 4
        canvas = np.zeros((self.size[0] * zoom, self.size[1] * zoom), np.uint8)
        cv2.fillPoly(canvas, [np.round(points * zoom - 0.5).astype(np.int32)], 255)
        coverage = cv2.resize(canvas, self.size[::-1], interpolation=cv2.INTER_AREA) / 255
        return _Outline(kind, center, cv2.contourArea(points), coverage, np.linalg.inv(matrix))

    def _try_thing(
        self, label: int, home: np.ndarray, radius: float, center: tuple[float, float]
    ) -> bool:
        """Adds a thing of the class, if it fits there, and says whether it did."""
        kind = _OUTLINE_AND_HOMES[THING_CLASSES[label]][0]
        outline = self._random_outline(kind, radius, center)
        mask = outline.mask
        area = int(mask.sum())
        # Mostly in the image, and clearly on its stuff, of which enough can be seen around it: else
        # its class would be anybody's guess.
        reach = 2 * round(4 * self.scale) + 1
        around = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach))).astype(bool) & ~mask
        if (
            area < 0.6 * outline.whole_area
            or (mask & home).sum() < 0.85 * area
            or (around & home).sum() < 0.75 * around.sum()
        ):
            return False
        still_visible = [thing.visible & ~mask for thing in self.things]
        for thing, visible in zip(self.things, still_visible, strict=True):
            if visible.sum() < 0.55 * thing.whole_area:
                return False
            # Not every mask can be written as polygons: COCO's have no holes.
            if not thing.is_crowd and not _polygons_fit(visible):
                return False
        if not _polygons_fit(mask):
            return False
        for thing, visible in zip(self.things, still_visible, strict=True):
            thing.visible = visible
        self._paint(outline)
        self.things.append(_Thing(label, mask, area))
        return True

    def _paint(self, outline: _Outline) -> None:
        """Draws a thing with a random pattern of two colours."""
        # Offsets of pixel centres from the thing's, (pixels, 2), and u, v in the unit outline.
        rows, columns = np.nonzero(outline.coverage)
        offsets = np.stack([columns, rows], axis=1) + 0.5 - outline.center
        u, v = outline.to_unit @ offsets.T
        phase = self.random.uniform(0, 2 * np.pi)
        if outline.kind == "disc":
            second = np.sin(self.random.integers(2, 4) * np.arctan2(v, u) + phase) > 0
        elif outline.kind == "triangle":
            second = np.sin(self.random.uniform(3, 6) * u + phase) > 0
        else:
            second = u * (v + 0.3) > 0
        color = _random_color(self.random, saturation=(150, 255), brightness=(130, 255))
        other = _random_color(self.random, saturation=(0, 90), brightness=(170, 255))
        # Light from the upper left.
        light = 1 - 0.15 * np.clip(u + v, -1.5, 1.5)
        paint = np.where(second[:, None], color, other) * light[:, None]
        below = self.image[rows, columns]
        opacity = outline.coverage[rows, columns][:, None]
        self.image[rows, columns] = below + opacity * (paint - below)


def _smooth_noise(
    random: np.random.Generator, height: int, width: int, cell_height: float, cell_width: float
) -> np.ndarray:
    """(height, width) float32 noise of about unit variance, smooth over cells of the given size."""
    grid = random.standard_normal(
        (max(2, round(height / cell_height)), max(2, round(width / cell_width))), np.float32
    )
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def _stuff_regions(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width) int, the index in STUFF_CLASSES of each pixel.

    Below a hilly horizon, the ground is cut into two or three regions along the contour lines of a
    smooth random relief.
    """
    relief = _smooth_noise(random, height, width, height / 3, width / 3)
    relief += random.uniform(-2, 2) * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    ground = random.permutation([_GRASS, _SAND, _WATER])[: random.integers(2, 4)]
    cuts = np.quantile(relief, np.arange(1, len(ground)) / len(ground) + random.uniform(-0.1, 0.1))
    stuff = ground[np.digitize(relief, cuts)]
    # Sometimes there is next to no sky.
    horizon = height * random.uniform(-0.1, 0.6)
    hills = horizon + 0.05 * height * _smooth_noise(random, 1, width, 1, width / 5)[0]
    stuff[np.arange(height)[:, None] < hills] = _SKY
    return stuff


def _stuff_colors(random: np.random.Generator, stuff: np.ndarray) -> np.ndarray:
    """(height, width, 3) float32 RGB, 0 to 255: each kind of stuff with its colour and texture."""
    height, width = stuff.shape

    def noise(cell_height: float, cell_width: float) -> np.ndarray:
        return _smooth_noise(random, height, width, cell_height, cell_width)

    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    # Brightness added to each colour: clouds, blades of grass, dunes and grains, waves.
    clouds = 50 * rows + 35 * noise(height / 6, width / 4).clip(0, 1)
    blades = 14 * noise(6, 2) + 8 * noise(20, 30)
    dunes = 8 * noise(8, 30) + 8 * noise(1, 1)
    waves = 12 * noise(2, 14) + 8 * np.sin(rows * height / random.uniform(0.8, 1.5) + noise(30, 50))
    # OpenCV's hue has 180 steps: 20 is yellow-orange, 60 green, 110 blue.
    looks = {
        _SKY: (clouds, {"hue": (98, 116), "saturation": (50, 150), "brightness": (140, 220)}),
        _GRASS: (blades, {"hue": (36, 58), "saturation": (90, 190), "brightness": (80, 160)}),
        _SAND: (dunes, {"hue": (14, 26), "saturation": (50, 120), "brightness": (150, 220)}),
        _WATER: (waves, {"hue": (92, 116), "saturation": (90, 190), "brightness": (90, 200)}),
    }
    image = np.empty((height, width, 3), np.float32)
    for kind, (texture, color_range) in looks.items():
        region = stuff == kind
        image[region] = _random_color(random, **color_range) + texture[region][:, None]
    return image


def _random_color(
    random: np.random.Generator,
    *,
    hue: tuple[int, int] = (0, 179),
    saturation: tuple[int, int],
    brightness: tuple[int, int],
) -> np.ndarray:
    """(3,) float32 RGB, 0 to 255, from ranges of OpenCV's hue, saturation and value."""
    hsv = [[[random.integers(*span, endpoint=True) for span in (hue, saturation, brightness)]]]
    return cv2.cvtColor(np.array(hsv, np.uint8), cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """The outlines of a mask, COCO's way: [x0, y0, x1, y1, ...] in pixels, (0, 0) the corner."""
    zoom = 4
    # OpenCV joins the centres of border pixels. Enlarged, these are near the true border.
    enlarged = cv2.resize(
        mask.astype(np.uint8), None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST
    )
    contours, _ = cv2.findContours(enlarged, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contours = [cv2.approxPolyDP(contour, 0.4 * zoom, closed=True) for contour in contours]
    return [
        ((contour.reshape(-1) + 0.5) / zoom).round(2).tolist()
        for contour in contours
        if len(contour) >= 3
    ]


def _polygons_fit(mask: np.ndarray) -> bool:
    """Whether `_polygons` describes the mask well: not if it has holes or is too thin."""
    polygons = _polygons(mask)
    if mask.sum() < 40 or not polygons:
        return False
    filled = mask_util.decode(mask_util.merge(mask_util.frPyObjects(polygons, *mask.shape)))
    filled = filled.astype(bool)
    return (filled & mask).sum() > 0.97 * (filled | mask).sum()


def _run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed encoding: lengths of the runs of 0, 1, 0, ..., column by column."""
    pixels = np.concatenate([[0], mask.flatten(order="F"), [1 - mask[-1, -1]]]).astype(int)
    counts = np.diff(np.flatnonzero(np.diff(pixels)), prepend=0)
    return {"size": list(mask.shape), "counts": counts.tolist()}
