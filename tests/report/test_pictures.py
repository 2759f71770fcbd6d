import base64
import io

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from hybrid_cascade.report.pictures import MAX_SIDE, image_uri, label_map_uri, mask_path


def decode(uri, kind):
    prefix = f"data:{kind};base64,"
    assert uri.startswith(prefix)
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix(prefix))))


def test_an_image_is_reduced_and_turned_as_its_exif_says(tmp_path):
    image = Image.fromarray(np.full((1000, 2000, 3), (200, 30, 40), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    uri, size = image_uri(tmp_path / "a.jpg")
    assert size == (1000, 2000)
    decoded = decode(uri, "image/jpeg")
    assert decoded.size == (MAX_SIDE // 2, MAX_SIDE)
    assert np.abs(np.asarray(decoded).reshape(-1, 3).mean(0) - (200, 30, 40)).max() < 3


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_other_modes_are_shown(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (20, 10)).convert(mode).save(path)
    assert image_uri(path)[1] == (20, 10)


def test_what_is_no_image_has_no_picture(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8 no image")
    for path in (tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path, None):
        assert image_uri(path) is None


def test_labels_have_their_colours_and_others_are_transparent():
    sem_seg = np.zeros((40, 60), np.int64)
    sem_seg[:, 20:40], sem_seg[:, 40:] = 1, 255
    uri = label_map_uri(sem_seg, {0: (250, 0, 0), 1: (0, 0, 250)})
    rgba = np.asarray(decode(uri, "image/png").convert("RGBA")).astype(int)
    assert rgba.shape == (40, 60, 4)
    for column, color in ((5, (250, 0, 0, 255)), (30, (0, 0, 250, 255))):
        assert np.abs(rgba[:, column] - color).max() <= 4
    assert (rgba[:, 50, 3] == 0).all()


def polygons_of(path):
    parts = [part for part in path.removesuffix("Z").split("Z") if part]
    return [np.array([p.split() for p in part[1:].split("L")], float) for part in parts]


def area(points):
    x, y = points.T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_outlines_have_the_area_of_the_mask_with_its_holes():
    mask = np.zeros((100, 120), np.uint8)
    mask[20:70, 30:90] = 1
    mask[30:50, 40:60] = 0
    mask[80:90, 5:25] = 1
    path = mask_path(coco_mask.encode(np.asfortranarray(mask)))
    polygons = sorted(polygons_of(path), key=area)
    assert len(polygons) == 3
    piece, hole, whole = polygons
    assert area(whole) - area(hole) + area(piece) == pytest.approx(mask.sum(), rel=0.06)
    for points, (left, top, right, bottom) in ((whole, (30, 20, 90, 70)), (hole, (40, 30, 60, 50))):
        assert (
            np.abs([*points.min(0), *points.max(0)] - np.array([left, top, right, bottom])).max()
            <= 0.75
        )


def test_an_empty_mask_has_no_outline():
    assert mask_path(coco_mask.encode(np.zeros((9, 9), np.uint8, order="F"))) == ""
