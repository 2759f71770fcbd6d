import json

import pytest

from hybrid_cascade.predict.jobs import Item, list_items, make_jobs


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "inner/a.PNG", "inner/notes.md", "clip.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def test_files_of_a_folder_are_named_by_their_path_within_it(folder):
    assert list_items([folder]) == [
        Item(f"{folder}/b.jpg", "b.jpg"),
        Item(f"{folder}/inner/a.PNG", "inner/a.PNG"),
    ]


def test_patterns_and_files_are_named_by_the_file(folder):
    found = list_items([f"{folder}/inner/*.PNG", f"{folder}/clip.mp4"])
    assert [item.name for item in found] == ["a.PNG", "clip.mp4"]


def test_a_text_file_lists_paths(folder):
    (folder / "list.txt").write_text(f"inner/a.PNG\n\n{folder}/b.jpg\n../outside.jpg\n")
    found = list_items([folder / "list.txt"], image_root=str(folder))
    assert [item.path for item in found] == [
        f"{folder}/inner/a.PNG",
        f"{folder}/b.jpg",
        f"{folder}/../outside.jpg",
    ]
    assert [item.name for item in found] == ["inner/a.PNG", "b.jpg", "outside.jpg"]


def test_a_coco_file_lists_images_with_ids(folder):
    images = [{"file_name": "inner/a.PNG", "id": 42}, {"file_name": "../../evil.png", "id": 43}]
    (folder / "val.json").write_text(json.dumps({"images": images}))
    found = list_items([folder / "val.json"], image_root=str(folder))
    assert [(item.name, item.image_id) for item in found] == [("inner/a.PNG", 42), ("evil.png", 43)]


def test_an_image_that_is_given_twice_is_taken_once_and_clashes_are_refused(folder):
    assert len(list_items([folder, folder / "b.jpg"])) == 2
    (folder / "inner" / "b.jpg").touch()
    with pytest.raises(ValueError, match="would both be named 'b.jpg'"):
        list_items([folder / "b.jpg", folder / "inner" / "b.jpg"])


@pytest.mark.parametrize("text", ["[]", "{}", '{"images": [{"id": 1}]}', "no JSON"])
def test_other_json_files_are_refused(folder, text):
    (folder / "val.json").write_text(text)
    with pytest.raises(ValueError, match="val.json' is no annotation file"):
        list_items([folder / "val.json"])


def test_no_images_are_an_error(folder):
    (folder / "list.txt").write_text("\n")
    with pytest.raises(FileNotFoundError, match="list.txt"):
        list_items([folder / "list.txt"])


def test_jobs_are_batches_of_images_and_single_videos():
    items = [Item(name, name) for name in ("a.jpg", "b.jpg", "c.jpg", "v.mp4", "d.jpg", "e.png")]
    assert make_jobs(items, 2) == [[0, 1], [2], [3], [4, 5]]
    assert make_jobs(items, 1) == [[i] for i in range(6)]
