import cv2
import numpy as np
import pytest
from PIL import Image

from hybrid_cascade.predict import read_inputs

BLUE, RED = (255, 0, 0), (0, 0, 255)  # BGR


def fill(color, height=6, width=10):
    return np.full((height, width, 3), color, np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two images, one of them in a subfolder, and a text."""
    (tmp_path / "inner").mkdir()
    cv2.imwrite(str(tmp_path / "b.png"), fill(BLUE))
    cv2.imwrite(str(tmp_path / "inner" / "a.png"), fill(RED))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_path_is_read_in_bgr(folder):
    [(name, image)] = read_inputs(folder / "b.png")
    assert name == str(folder / "b.png")
    assert image.shape == (6, 10, 3) and image.dtype == np.uint8
    assert (image == BLUE).all()


def test_a_folder_gives_its_images_and_those_of_subfolders(folder):
    assert [x.name for x in read_inputs(folder)] == [
        str(folder / "b.png"),
        str(folder / "inner" / "a.png"),
    ]


def test_a_pattern_gives_its_matches(folder):
    [(name, image)] = read_inputs(f"{folder}/**/a.*")
    assert name.endswith("inner/a.png") and (image == RED).all()


def test_arrays_are_bgr_and_pil_images_are_turned(folder):
    pictures = [fill(RED), Image.fromarray(fill(RED)[:, :, ::-1]), np.zeros((4, 5), np.uint8)]
    found = list(read_inputs([*pictures, folder / "b.png"]))
    assert [x.name for x in found[:3]] == ["image_0", "image_1", "image_2"]
    assert (found[0].image == RED).all() and (found[1].image == RED).all()
    assert found[2].image.shape == (4, 5, 3)
    assert (found[3].image == BLUE).all()


def test_images_are_turned_as_their_exif_tag_says(tmp_path):
    image = Image.new("RGB", (10, 6))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter to the right
    image.save(tmp_path / "turned.jpg", exif=exif)
    [(_, found)] = read_inputs(tmp_path / "turned.jpg")
    assert found.shape == (10, 6, 3)


def test_a_video_gives_its_frames(tmp_path):
    path = str(tmp_path / "video.avi")
    video = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 5, (32, 16))
    for color in (BLUE, RED, BLUE):
        video.write(fill(color, 16, 32))
    video.release()
    names, frames = zip(*read_inputs(path), strict=True)
    assert names == tuple(f"{path}#{i:06d}" for i in range(3))
    assert [f[8, 16].argmax() for f in frames] == [0, 2, 0]


def test_files_are_read_one_at_a_time(folder):
    (folder / "z.png").write_bytes((folder / "b.png").read_bytes()[:60])
    images = read_inputs(folder)
    assert len([next(images), next(images)]) == 2
    with pytest.raises(ValueError, match="z.png' can't be read"):
        next(images)


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("nowhere.jpg", FileNotFoundError, "nowhere.jpg"),
        ("*.nothing", FileNotFoundError, "nothing"),
        ("empty", FileNotFoundError, "folder has no image: .*empty"),
        ("notes.txt", ValueError, "notes.txt' is neither an image nor a video"),
        (np.zeros((4, 5, 3)), ValueError, r"\(4, 5, 3\) float64"),
        (np.zeros((4, 5, 4), np.uint8), ValueError, r"\(4, 5, 4\) uint8"),
        (7, TypeError, "not iterable"),
        ([None], ValueError, "a NoneType"),
    ],
)
def test_what_is_no_image_is_named(source, error, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    with pytest.raises(error, match=message):
        list(read_inputs(source))
