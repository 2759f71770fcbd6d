"""The outlines of things, placed in an image of H x W pixels."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

_ANGLES = 2 * np.pi * np.arange(40) / 40
# Corners of the outlines around the origin, (corners, 2) as x, y; y points down.
_CORNERS = {
    "disc": np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1),
    "triangle": np.array([[0.0, -1.15], [1.0, 0.85], [-1.0, 0.85]]),
    "diamond": np.array([[0.0, -1.0], [0.75, -0.3], [0.0, 1.2], [-0.75, -0.3]]),
}
# An outline is turned by at most this angle in either direction, in radians.
_MAX_TURN = {"disc": np.pi, "triangle": 0.3, "diamond": 0.8}


@dataclass
class Outline:
    """An outline at its place in the image.

    kind: "disc", "triangle" or "diamond".
    center: x and y in pixels.
    whole_area: in pixels, including the part that lies outside the image.
    coverage: (H, W) in 0 to 1, how much of each pixel is inside.
    to_unit: (2, 2), maps offsets from the center to positions in the unit outline.
    """

    kind: str
    center: tuple[float, float]
    whole_area: float
    coverage: np.ndarray
    to_unit: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, the pixels that are at least half inside."""
        return self.coverage >= 0.5


def random_outline(
    random: np.random.Generator,
    kind: str,
    radius: float,
    center: tuple[float, float],
    image_size: tuple[int, int],
) -> Outline:
    """Return an outline that is turned and stretched at random.

    Args:
        random: where the random numbers come from.
        kind: "disc", "triangle" or "diamond".
        radius: in pixels.
        center: x and y in pixels.
        image_size: H, W.
    """
    turn = random.uniform(-_MAX_TURN[kind], _MAX_TURN[kind])
    stretch = random.uniform(0.85, 1.18)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = rotation @ np.diag([radius * stretch, radius / stretch])
    points = (_CORNERS[kind] @ matrix.T + center).astype(np.float32)
    zoom = 4
    canvas = np.zeros((image_size[0] * zoom, image_size[1] * zoom), np.uint8)
    cv2.fillPoly(canvas, [np.round(points * zoom - 0.5).astype(np.int32)], 255)
    coverage = cv2.resize(canvas, image_size[::-1], interpolation=cv2.INTER_AREA) / 255
    return Outline(kind, center, cv2.contourArea(points), coverage, np.linalg.inv(matrix))
