import logging

import pytest
from detectron2.data import MapDataset
from PIL import Image
from torch.utils.data import DataLoader

from hybrid_cascade.data import CopyPasteMapper, DatasetError, SkipUnreadable


def read(image):
    with Image.open(image["file_name"]) as opened:
        return opened.size


@pytest.fixture
def images(tmp_path):
    """Return dicts of eight images, of which those of odd numbers are broken."""
    dicts = [{"file_name": str(tmp_path / f"{i}.png")} for i in range(8)]
    for index, image in enumerate(dicts):
        Image.new("RGB", (4, 3)).save(image["file_name"])
        if index % 2:
            with open(image["file_name"], "w") as file:
                file.write("no image")
    return dicts


def test_an_unreadable_image_is_skipped_and_logged_once(images, caplog):
    mapper = SkipUnreadable(read, 2, "some.key")
    with caplog.at_level(logging.WARNING):
        assert [mapper(x) for x in (*images[:2], *images[:2])] == [(4, 3), None] * 2
    assert mapper.num_skipped == 1
    [message] = [record.getMessage() for record in caplog.records]
    assert "1.png' can't be read" in message and "1 of at most 2 files (some.key)" in message


@pytest.mark.parametrize("limit", [0, 2])
def test_more_files_than_the_limit_are_an_error(images, limit):
    mapper = SkipUnreadable(read, limit, "some.key")
    for image in images[1::2][:limit]:
        mapper(image)
    with pytest.raises(DatasetError, match=rf"\d.png' can't be read .*{limit} other.*some.key"):
        mapper(images[1::2][limit])


def test_the_data_loader_takes_other_images_and_its_workers_count_together(images):
    mapper = SkipUnreadable(read, 4)
    loader = DataLoader(MapDataset(images, mapper), num_workers=2, collate_fn=list)
    assert [x for batch in loader for x in batch] == [(4, 3)] * 8
    assert mapper.num_skipped == 4


def test_other_errors_are_not_hidden():
    with pytest.raises(KeyError):
        SkipUnreadable(read)({})


def test_copy_paste_leaves_out_what_is_skipped(images):
    mapper = CopyPasteMapper(SkipUnreadable(read), images)
    assert mapper(images[1]) is None
