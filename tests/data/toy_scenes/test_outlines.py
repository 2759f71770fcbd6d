import numpy as np
import pytest

from hybrid_cascade.data.toy_scenes.outlines import random_outline


def outline(kind, radius=20.0, center=(60.0, 40.0), seed=0):
    return random_outline(np.random.default_rng(seed), kind, radius, center, (80, 120))


@pytest.mark.parametrize("kind", ["disc", "triangle", "diamond"])
def test_the_coverage_sums_up_to_the_area_of_an_outline_inside_the_image(kind):
    for seed in range(5):
        inside = outline(kind, seed=seed)
        assert inside.coverage.shape == (80, 120)
        assert 0 <= inside.coverage.min() < inside.coverage.max() == 1
        assert inside.coverage.sum() == pytest.approx(inside.whole_area, rel=0.03)
        assert inside.mask.sum() == pytest.approx(inside.whole_area, rel=0.05)


def test_the_whole_area_includes_what_lies_outside_the_image():
    cut = outline("disc", center=(0.0, 0.0))
    assert cut.mask.sum() == pytest.approx(cut.whole_area / 4, rel=0.1)


def test_pixels_of_a_disc_are_mapped_into_the_unit_disc():
    disc = outline("disc")
    rows, columns = np.nonzero(disc.mask)
    offsets = np.stack([columns, rows], axis=1) + 0.5 - disc.center
    assert abs(offsets.mean(axis=0)).max() < 0.5
    distances = np.linalg.norm(offsets @ disc.to_unit.T, axis=1)
    assert 0.95 < distances.max() < 1.05
