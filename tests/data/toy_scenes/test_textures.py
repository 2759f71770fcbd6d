import numpy as np
import pytest

from hybrid_cascade.data.toy_scenes import STUFF_CLASSES
from hybrid_cascade.data.toy_scenes.textures import (
    random_color,
    smooth_noise,
    stuff_colors,
    thing_colors,
)


def test_noise_is_smooth_over_its_cells():
    noise = smooth_noise(np.random.default_rng(0), 120, 120, 10, 40)
    assert noise.shape == (120, 120) and noise.dtype == np.float32
    assert 0.5 < noise.std() < 1.5
    along_rows, along_columns = abs(np.diff(noise, axis=1)), abs(np.diff(noise, axis=0))
    assert along_rows.mean() < 0.5 * along_columns.mean() < 0.5


def test_colors_keep_to_their_ranges():
    random = np.random.default_rng(0)
    for _ in range(50):
        color = random_color(random, hue=(55, 65), saturation=(200, 255), brightness=(90, 120))
        assert color.argmax() == 1  # green
        assert 90 <= color.max() <= 120


@pytest.mark.parametrize(("name", "brightest"), [("sky", 2), ("grass", 1), ("sand", 0)])
def test_each_kind_of_stuff_has_a_color_of_its_kind(name, brightest):
    stuff = np.full((40, 60), STUFF_CLASSES.index(name))
    for seed in range(5):
        image = stuff_colors(np.random.default_rng(seed), stuff)
        assert image.shape == (40, 60, 3) and image.dtype == np.float32
        assert image.mean(axis=(0, 1)).argmax() == brightest
        assert image.std(axis=(0, 1)).min() > 3  # texture


@pytest.mark.parametrize("kind", ["disc", "triangle", "diamond"])
def test_things_have_a_pattern_of_two_colors(kind):
    random = np.random.default_rng(0)
    u, v = random.uniform(-1, 1, (2, 500))
    paint = thing_colors(random, kind, u, v)
    assert paint.shape == (500, 3)
    unlit = paint / (1 - 0.15 * np.clip(u + v, -1.5, 1.5))[:, None]
    colors, numbers = np.unique(unlit.round(2), axis=0, return_counts=True)
    assert len(colors) == 2 and numbers.min() > 50
