"""One scene: which stuff lies where in an image of H x W pixels, and which things lie on it."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .annotations import Segment, polygons_fit
from .classes import (
    GRASS,
    HOMES,
    IGNORE_LABEL,
    OUTLINES,
    SAND,
    SKY,
    STUFF_LABELS,
    THING_CLASSES,
    WATER,
)
from .outlines import Outline, random_outline
from .textures import smooth_noise, stuff_colors, thing_colors


@dataclass(kw_only=True)
class Thing(Segment):
    """A thing, or a crowd of them.

    whole_area: the number of its pixels that were visible when it had just been drawn.
    """

    whole_area: int

    @property
    def visible_fraction(self) -> float:
        """How much of it the things that were drawn later have left visible, in (0, 1]."""
        return float(self.visible.sum() / self.whole_area)


class Scene:
    """An image in the making: stuff first, then things, each over those before."""

    def __init__(self, random: np.random.Generator, image_size: tuple[int, int]) -> None:
        """
        Args:
            random: where all random numbers of the scene come from.
            image_size: H, W.
        """
        self.random = random
        self.size = image_size
        self.stuff = stuff_regions(random, *image_size)
        self.image = stuff_colors(random, self.stuff)
        self.things: list[Thing] = []
        # Sizes are written for an image of 128 pixels' height.
        self.scale = min(image_size) / 128

    def add_things(self, number: int) -> None:
        """Add up to `number` things; fewer if there is no room for them."""
        homes = {label: self._home_of(label) for label in range(len(THING_CLASSES))}
        labels = [label for label, home in homes.items() if home.mean() > 0.1]
        for _ in range(number):
            # The class is chosen before the place, so that all classes are about equally frequent.
            label = int(self.random.choice(labels))
            home = homes[label]
            for _ in range(40):
                radius = self.scale * math.exp(self.random.uniform(math.log(14), math.log(42)))
                center = self._pick_center(home, radius)
                if center is not None and self._try_thing(label, home, radius, center):
                    break

    def add_crowd(self) -> None:
        """Add many small balls or buoys, close together, annotated as one crowd."""
        depths = {}
        for label in (THING_CLASSES.index("ball"), THING_CLASSES.index("buoy")):
            # The distance to other stuff and to the border says how much room there is.
            framed = np.pad(self._home_of(label).astype(np.uint8), 1)
            depths[label] = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1]
        label, depth = max(depths.items(), key=lambda item: item[1].max())
        center_y, center_x = np.unravel_index(depth.argmax(), depth.shape)
        spread = min(depth.max(), 24 * self.scale)
        covered = np.zeros(self.size, np.uint8)
        for _ in range(16):
            x, y = (center_x, center_y) + self.random.uniform(-1, 1, 2) * (spread, 0.5 * spread)
            radius = self.scale * self.random.uniform(3.5, 5.5)
            outline = random_outline(self.random, "disc", radius, (x, y), self.size)
            self._paint(outline)
            covered |= outline.mask
        # Annotators outline a crowd as a whole, with the gaps in it.
        covered = cv2.morphologyEx(covered, cv2.MORPH_CLOSE, np.ones((5, 5))).astype(bool)
        area = int(covered.sum())
        self.things.append(Thing(label=label, visible=covered, is_crowd=True, whole_area=area))

    def label_map(self) -> np.ndarray:
        """Return the (H, W) uint8 labels of what is visible; crowds are `IGNORE_LABEL`."""
        labels = (self.stuff + len(THING_CLASSES)).astype(np.uint8)
        for thing in self.things:
            labels[thing.visible] = IGNORE_LABEL if thing.is_crowd else thing.label
        return labels

    def segments(self) -> list[Segment]:
        """Return the things and crowds, then the visible stuff. Every pixel is in one of them."""
        labels = self.label_map()
        stuff = [Segment(label=label, visible=labels == label) for label in STUFF_LABELS]
        return [*self.things, *(segment for segment in stuff if segment.visible.any())]

    def finished_image(self) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB, with the blur and noise of a camera.

        The noise is drawn anew in each call.
        """
        image = cv2.GaussianBlur(self.image, (0, 0), 0.5)
        image += self.random.normal(0, 5, image.shape)
        return image.clip(0, 255).round().astype(np.uint8)

    def _home_of(self, label: int) -> np.ndarray:
        """Return (H, W) bool, the stuff that a class of things lies on."""
        return np.isin(self.stuff, HOMES[THING_CLASSES[label]])

    def _pick_center(self, home: np.ndarray, radius: float) -> tuple[float, float] | None:
        """Return a place (x, y) in the stuff of `home`, or None if there is none at the first try.

        It is often next to another thing, so that things overlap.
        """
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

    def _try_thing(
        self, label: int, home: np.ndarray, radius: float, center: tuple[float, float]
    ) -> bool:
        """Add a thing of the class if it fits there, and return whether it did."""
        kind = OUTLINES[THING_CLASSES[label]]
        outline = random_outline(self.random, kind, radius, center, self.size)
        mask = outline.mask
        if not self._is_at_home(outline, home):
            return False
        still_visible = [thing.visible & ~mask for thing in self.things]
        for thing, visible in zip(self.things, still_visible, strict=True):
            if visible.sum() < 0.55 * thing.whole_area:
                return False
            # Not every mask can be written as polygons: COCO's have no holes.
            if not thing.is_crowd and not polygons_fit(visible):
                return False
        if not polygons_fit(mask):
            return False
        for thing, visible in zip(self.things, still_visible, strict=True):
            thing.visible = visible
        self._paint(outline)
        self.things.append(Thing(label=label, visible=mask, whole_area=int(mask.sum())))
        return True

    def _is_at_home(self, outline: Outline, home: np.ndarray) -> bool:
        """Return whether the outline lies mostly in the image, and clearly on the stuff of `home`.

        Enough of that stuff must be visible around it; otherwise nobody could tell its class.
        """
        mask = outline.mask
        area = mask.sum()
        reach = 2 * round(4 * self.scale) + 1
        around = cv2.dilate(mask.astype(np.uint8), np.ones((reach, reach))).astype(bool) & ~mask
        return not (
            area < 0.6 * outline.whole_area
            or (mask & home).sum() < 0.85 * area
            or (around & home).sum() < 0.75 * around.sum()
        )

    def _paint(self, outline: Outline) -> None:
        """Draw a thing in a random pattern of two colors."""
        rows, columns = np.nonzero(outline.coverage)
        # Offsets of pixel centers from the thing's center, (pixels, 2).
        offsets = np.stack([columns, rows], axis=1) + 0.5 - outline.center
        paint = thing_colors(self.random, outline.kind, *(outline.to_unit @ offsets.T))
        below = self.image[rows, columns]
        opacity = outline.coverage[rows, columns][:, None]
        self.image[rows, columns] = below + opacity * (paint - below)


def stuff_regions(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return (H, W) int, the position in `STUFF_CLASSES` of each pixel.

    Below a hilly horizon, the ground is cut into two or three regions along the contour lines of a
    smooth random relief.
    """
    relief = smooth_noise(random, height, width, height / 3, width / 3)
    relief += random.uniform(-2, 2) * np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    ground = random.permutation([GRASS, SAND, WATER])[: random.integers(2, 4)]
    cuts = np.quantile(relief, np.arange(1, len(ground)) / len(ground) + random.uniform(-0.1, 0.1))
    stuff = ground[np.digitize(relief, cuts)]
    # Sometimes there is next to no sky.
    horizon = height * random.uniform(-0.1, 0.6)
    hills = horizon + 0.05 * height * smooth_noise(random, 1, width, 1, width / 5)[0]
    stuff[np.arange(height)[:, None] < hills] = SKY
    return stuff
