"""The colors and textures of stuff and things in an image of H x W pixels."""

import cv2
import numpy as np

from .classes import GRASS, SAND, SKY, WATER


def smooth_noise(
    random: np.random.Generator, height: int, width: int, cell_height: float, cell_width: float
) -> np.ndarray:
    """Return (H, W) float32 noise of about unit variance, smooth over cells of the given size.

    Args:
        random: where the random numbers come from.
        height: H in pixels.
        width: W in pixels.
        cell_height: in pixels.
        cell_width: in pixels.
    """
    grid = random.standard_normal(
        (max(2, round(height / cell_height)), max(2, round(width / cell_width))), np.float32
    )
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)


def random_color(
    random: np.random.Generator,
    *,
    hue: tuple[int, int] = (0, 179),
    saturation: tuple[int, int],
    brightness: tuple[int, int],
) -> np.ndarray:
    """Return (3,) float32 RGB, 0 to 255, from ranges of OpenCV's hue, saturation and value."""
    hsv = [[[random.integers(*span, endpoint=True) for span in (hue, saturation, brightness)]]]
    return cv2.cvtColor(np.array(hsv, np.uint8), cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def stuff_colors(random: np.random.Generator, stuff: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) float32 RGB, 0 to 255: each kind of stuff in its color and texture.

    Args:
        random: where the random numbers come from.
        stuff: (H, W) int, the position in `STUFF_CLASSES` of each pixel.
    """
    height, width = stuff.shape

    def noise(cell_height: float, cell_width: float) -> np.ndarray:
        return smooth_noise(random, height, width, cell_height, cell_width)

    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    # Brightness added to each color: clouds, blades of grass, dunes and grains, waves.
    clouds = 50 * rows + 35 * noise(height / 6, width / 4).clip(0, 1)
    blades = 14 * noise(6, 2) + 8 * noise(20, 30)
    dunes = 8 * noise(8, 30) + 8 * noise(1, 1)
    waves = 12 * noise(2, 14) + 8 * np.sin(rows * height / random.uniform(0.8, 1.5) + noise(30, 50))
    # OpenCV's hue has 180 steps: 20 is yellow-orange, 60 green, 110 blue.
    looks = {
        SKY: (clouds, {"hue": (98, 116), "saturation": (50, 150), "brightness": (140, 220)}),
        GRASS: (blades, {"hue": (36, 58), "saturation": (90, 190), "brightness": (80, 160)}),
        SAND: (dunes, {"hue": (14, 26), "saturation": (50, 120), "brightness": (150, 220)}),
        WATER: (waves, {"hue": (92, 116), "saturation": (90, 190), "brightness": (90, 200)}),
    }
    image = np.empty((height, width, 3), np.float32)
    for kind, (texture, color_range) in looks.items():
        region = stuff == kind
        image[region] = random_color(random, **color_range) + texture[region][:, None]
    return image


def thing_colors(
    random: np.random.Generator, kind: str, u: np.ndarray, v: np.ndarray
) -> np.ndarray:
    """Return the RGB colors of the pixels of a thing: a random pattern of two colors.

    Args:
        random: where the random numbers come from.
        kind: the outline: "disc", "triangle" or "diamond".
        u: (pixels,), where each pixel is in the unit outline, to the right of its center.
        v: (pixels,), the same, below its center.

    Returns:
        (pixels, 3), 0 to 255, or a bit more where light falls on a bright color.
    """
    phase = random.uniform(0, 2 * np.pi)
    if kind == "disc":
        second = np.sin(random.integers(2, 4) * np.arctan2(v, u) + phase) > 0
    elif kind == "triangle":
        second = np.sin(random.uniform(3, 6) * u + phase) > 0
    else:
        second = u * (v + 0.3) > 0
    color = random_color(random, saturation=(150, 255), brightness=(130, 255))
    other = random_color(random, saturation=(0, 90), brightness=(170, 255))
    # Light comes from the upper left.
    light = 1 - 0.15 * np.clip(u + v, -1.5, 1.5)
    return np.where(second[:, None], color, other) * light[:, None]
