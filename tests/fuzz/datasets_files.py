"""Faults of image files and label maps."""

import os
import zlib

import numpy as np
from PIL import ExifTags, Image

from .datasets_faults import HEIGHT, WIDTH, Fault


def _pick(random, folder, kind):
    return random.choice(sorted((folder / kind).iterdir()))


def _image_fault(name, change, names, **options):
    def apply(random, content, folder):
        change(random, _pick(random, folder, "images"))

    return Fault(f"image {name}", apply, names, **options)


def _map_fault(name, change, names, **options):
    def apply(random, content, folder):
        change(random, _pick(random, folder, "maps"))

    return Fault(f"label map {name}", apply, names, **options)


def _html(random, path):
    path.write_text("<html>Not found</html>")


def _cut_header(random, path):
    path.write_bytes(path.read_bytes()[: random.randint(0, 20)])


def _truncate(random, path):
    path.write_bytes(path.read_bytes()[: random.randint(200, path.stat().st_size // 2)])


def _folder(random, path):
    path.unlink()
    path.mkdir()


def _resized(random, path):
    size = random.choice([(HEIGHT, WIDTH), (WIDTH + 1, HEIGHT), (2 * WIDTH, 2 * HEIGHT)])
    Image.open(path).resize(size).save(path)


def _one_pixel(random, path):
    Image.new("RGB", random.choice([(1, 1), (1, HEIGHT), (WIDTH, 1)])).save(path)


def _bomb(random, path):
    """Write the header of a PNG of 10 gigapixels."""
    data = bytearray(path.read_bytes())
    data[16:24] = (100_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(data))


def _sixteen_bits(random, path):
    Image.fromarray(np.full((HEIGHT, WIDTH), 3000, np.uint16)).save(path)


def _many_bits(random, path):
    dtype = random.choice([np.float32, np.int32])
    Image.fromarray(np.full((HEIGHT, WIDTH), 70, dtype)).save(path, format="TIFF")


def _turned(random, path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = random.randint(5, 8)
    Image.open(path).save(path, "JPEG", exif=exif)


def _values(dtype, low, high):
    def change(random, path):
        value = random.randint(low, high)
        labels = np.zeros((HEIGHT, WIDTH), dtype)
        labels[random.randrange(HEIGHT), random.randrange(WIDTH)] = value
        Image.fromarray(labels).save(path, format="TIFF" if dtype == np.int32 else "PNG")

    return change


def _map_mode(random, path):
    Image.new(random.choice(["RGB", "RGBA", "P", "1", "LA"]), (WIDTH, HEIGHT)).save(path)


def _all_ignored(random, path):
    Image.new("L", (WIDTH, HEIGHT), 255).save(path)


def _gray(random, path):
    Image.open(path).convert(random.choice(["L", "RGBA", "P", "1"])).save(path)


def _stuff_classes(random, content, folder):
    content["stuff_classes"] = ["a", "b", "c", "d", "e"][: random.choice([3, 5])]


ALL = ("train", "val", "eval_only")
IMAGE = r"images/\d\.png"
MAP = r"maps/\d\.png"
FILE_FAULTS = [
    _image_fault("is missing", lambda random, path: os.unlink(path), IMAGE),
    _image_fault("is a web page", _html, IMAGE),
    _image_fault("of no header", _cut_header, IMAGE),
    _image_fault("is a folder", _folder, IMAGE),
    _image_fault("of another size", _resized, IMAGE + ".*`width`"),
    _image_fault("of one pixel", _one_pixel, IMAGE),
    _image_fault("of 10 gigapixels", _bomb, IMAGE),
    _image_fault("of 16 bits", _sixteen_bits, IMAGE),
    _image_fault("of 32 bits", _many_bits, IMAGE),
    _image_fault("turned by its EXIF tag", _turned, IMAGE + ".*`width`"),
    _image_fault(
        "truncated",
        _truncate,
        IMAGE,
        uses=("train",),
        fine=("train",),
        why="truncated images are found by `check_images=decode` only; a training skips a few",
    ),
    _image_fault("truncated, all pixels are read", _truncate, IMAGE, decode=True),
    _image_fault("in gray or with a palette", _gray, IMAGE, fine=ALL),
    _map_fault("is missing", lambda random, path: os.unlink(path), MAP),
    _map_fault("is a web page", _html, MAP),
    _map_fault("truncated", _truncate, MAP),
    _map_fault("of another size", _resized, MAP),
    _map_fault("of several channels", _map_mode, MAP + ".*pixel format"),
    _map_fault("of 10 gigapixels", _bomb, MAP),
    _map_fault("with a label too many", _values(np.uint8, 4, 254), MAP + ".*value"),
    _map_fault("with 16-bit values", _values(np.uint16, 256, 65535), MAP + ".*value"),
    _map_fault("with negative values", _values(np.int32, -300, -1), MAP + ".*value -"),
    _map_fault("of 16 bits with small values", _values(np.uint16, 0, 3), MAP, fine=ALL),
    _map_fault("without labels", _all_ignored, MAP, fine=ALL),
    Fault("stuff_classes do not match", _stuff_classes, "stuff_classes"),
]
