import numpy as np
import pytest

from hybrid_cascade.visualization.layout import resize_to_tile, tile_size


@pytest.mark.parametrize(
    "size, expected",
    [((160, 160), (400, 400)), ((1200, 1600), (420, 560)), ((500, 45), (500, 45))],
)
def test_tiles_have_the_shape_of_the_image_and_a_bounded_longer_side(size, expected):
    assert tile_size(*size, columns=3) == expected


def test_tiles_of_many_columns_are_smaller():
    assert tile_size(1000, 1000, columns=8) == (276, 276)


def test_images_of_any_type_become_uint8_of_the_size_of_the_tile():
    image = np.full((4, 6, 3), (-3.0, 100.4, 300.0))
    for size in ((2, 3), (8, 12)):
        resized = resize_to_tile(image, size)
        assert resized.shape == (*size, 3) and resized.dtype == np.uint8
        assert (resized == (0, 100, 255)).all()
