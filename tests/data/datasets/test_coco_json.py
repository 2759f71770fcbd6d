import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from hybrid_cascade.data import DatasetError, register_coco_json


class Files:
    """A dataset of two images on disk, whose parts a test can damage before it is loaded."""

    def __init__(self, folder, name):
        self.folder = folder
        self.name = name
        self.content = {
            "images": [
                {"id": 7, "file_name": "north/a.jpg", "width": 8, "height": 6},
                {"id": 3, "file_name": "b.jpg", "width": 8, "height": 6},
            ],
            # Neither in order nor without gaps.
            "categories": [{"id": 40, "name": "moss"}, {"id": 2, "name": "fern"}],
            "annotations": [
                {
                    "id": index,
                    "image_id": 7,
                    "category_id": category,
                    "bbox": [1, 1, 4, 4],
                    "area": 16,
                    "iscrowd": 0,
                    "segmentation": [[1, 1, 5, 1, 5, 5]],
                }
                for index, category in enumerate((40, 2), start=1)
            ],
        }
        for file_name in ("images/north/a.jpg", "images/b.jpg", "maps/north/a.png", "maps/b.png"):
            path = folder / file_name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L" if file_name.endswith("png") else "RGB", (8, 6)).save(path)

    def load(self, **options):
        (self.folder / "plants.json").write_text(json.dumps(self.content))
        register_coco_json(
            self.name, str(self.folder / "plants.json"), str(self.folder / "images"), **options
        )
        return DatasetCatalog.get(self.name)


@pytest.fixture
def files(tmp_path, request):
    return Files(tmp_path, f"plants: {request.node.name}")


def test_categories_are_numbered_in_the_order_of_their_ids(files):
    north = {image["image_id"]: image for image in files.load()}[7]
    assert MetadataCatalog.get(files.name).thing_classes == ["fern", "moss"]
    assert [annotation["category_id"] for annotation in north["annotations"]] == [1, 0]
    assert "sem_seg_file_name" not in north


def test_label_maps_are_found_by_the_path_and_stem_of_their_image(files):
    maps = files.folder / "maps"
    dataset = files.load(sem_seg_root=str(maps), stuff_classes=("soil", "stone"), ignore_label=9)
    assert [image["sem_seg_file_name"] for image in dataset] == [
        str(maps / "b.png"),
        str(maps / "north" / "a.png"),
    ]
    metadata = MetadataCatalog.get(files.name)
    assert metadata.stuff_classes == ["soil", "stone"]
    assert metadata.ignore_label == 9
    assert metadata.sem_seg_root == str(maps)


def test_what_panoptic_evaluation_reads_is_in_the_metadata(files):
    panoptic = {"panoptic_json": "panoptic.json", "panoptic_root": "panoptic"}
    files.load(stuff_labels=(1,), stuff_dataset_id_to_contiguous_id={90: 1, 9: 0}, **panoptic)
    metadata = MetadataCatalog.get(files.name).as_dict()
    assert metadata["stuff_labels"] == [1]
    assert metadata["stuff_dataset_id_to_contiguous_id"] == {90: 1, 9: 0}
    assert panoptic.items() <= metadata.items()


@pytest.mark.parametrize("alone", ["panoptic_json", "panoptic_root"])
def test_panoptic_annotations_without_their_label_images_are_refused(alone):
    with pytest.raises(ValueError, match="'plants: half': panoptic_json and panoptic_root"):
        register_coco_json("plants: half", "plants.json", "plants", **{alone: "panoptic"})
    assert "plants: half" not in DatasetCatalog


def test_label_maps_can_have_another_suffix(files):
    maps = files.folder / "maps"
    for path in (maps / "b.png", maps / "north" / "a.png"):
        path.rename(path.with_name(path.stem + "_labels.png"))
    dataset = files.load(sem_seg_root=str(maps), sem_seg_suffix="_labels.png")
    assert dataset[0]["sem_seg_file_name"] == str(maps / "b_labels.png")


def test_prepare_runs_before_the_files_are_read(files):
    calls = []

    def prepare():
        calls.append("prepared")
        Image.new("L", (8, 6)).save(files.folder / "maps" / "b.png")

    (files.folder / "maps" / "b.png").unlink()
    files.load(sem_seg_root=str(files.folder / "maps"), prepare=prepare)
    assert calls == ["prepared"]


def test_a_missing_json_file_is_named(tmp_path):
    register_coco_json("plants: no json", str(tmp_path / "plants.json"), str(tmp_path))
    with pytest.raises(DatasetError, match="plants.json' does not exist.*DETECTRON2_DATASETS"):
        DatasetCatalog.get("plants: no json")


def test_a_missing_image_folder_is_named(files):
    (files.folder / "images").rename(files.folder / "pictures")
    with pytest.raises(DatasetError, match="images' does not exist"):
        files.load()


def test_an_image_folder_with_none_of_the_images_is_named(files):
    (files.folder / "images" / "b.jpg").unlink()
    files.load()  # one of the two is there
    (files.folder / "images" / "north" / "a.jpg").unlink()
    with pytest.raises(DatasetError, match="images' has none of the 2 images of .*plants.json'"):
        DatasetCatalog.get(files.name)


def test_an_unknown_category_is_named_with_its_file(files):
    files.content["annotations"][1]["category_id"] = 41
    with pytest.raises(DatasetError, match="plants.json' is not usable .*category_id=41"):
        files.load()


@pytest.mark.parametrize("key", ["images", "categories"])
def test_a_json_file_without_images_or_categories_is_named(files, key):
    files.content[key] = []
    if key == "images":
        files.content["annotations"] = []
    with pytest.raises(DatasetError, match=f"plants.json.*{key}|{key}.*plants.json"):
        files.load()


def test_a_missing_label_map_is_named_with_its_image(files):
    (files.folder / "maps" / "b.png").unlink()
    with pytest.raises(DatasetError, match="b.jpg' has no label map, expected .*maps/b.png'"):
        files.load(sem_seg_root=str(files.folder / "maps"))


def test_the_same_registration_again_changes_nothing_and_another_is_refused(tmp_path):
    arguments = {"json_file": "a.json", "image_root": str(tmp_path), "stuff_classes": ["sky"]}
    try:
        register_coco_json("registered_twice", **arguments)
        register_coco_json("registered_twice", **{**arguments, "stuff_classes": ("sky",)})
        with pytest.raises(ValueError, match="registered already, with json_file='a.json' in"):
            register_coco_json("registered_twice", **{**arguments, "json_file": "b.json"})
    finally:
        DatasetCatalog.remove("registered_twice")
        MetadataCatalog.remove("registered_twice")
