"""Register any dataset in COCO's JSON format, with or without label maps, in one call.

    from hybrid_cascade.data import register_coco_json

    register_coco_json(
        "plants_train",
        "plants/annotations/instances_train.json",
        "plants/train",
        "plants/stuff_train",                      # optional: one label map per image
        stuff_classes=["soil", "grass", "stone"],  # optional: names of the label map's values
    )

A label map is a single-channel PNG of the image's size and name (`0001.jpg` has `0001.png`) whose
pixel values are labels 0, 1, 2, ..., or `ignore_label` where there is none. docs/panoptic.md says
what else panoptic output and its evaluation need.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.utils.file_io import PathManager

from ..checks import DatasetError


def register_coco_json(
    name: str,
    json_file: str,
    image_root: str,
    sem_seg_root: str | None = None,
    *,
    stuff_classes: Sequence[str] | None = None,
    stuff_labels: Sequence[int] | None = None,
    stuff_dataset_id_to_contiguous_id: Mapping[int, int] | None = None,
    panoptic_json: str | None = None,
    panoptic_root: str | None = None,
    ignore_label: int = 255,
    sem_seg_suffix: str = ".png",
    evaluator_type: str = "coco",
    prepare: Callable[[], None] | None = None,
) -> None:
    """Add a dataset to Detectron2's catalogs, so that configs and `COCOEvaluator` know its name.

    No file is read before the dataset is first used. Mistakes in the files are reported then, as
    `DatasetError`. Category ids may come in any order and with gaps: classes are numbered in the
    order of their ids.

    Args:
        name: the name to use in configs, e.g. `dataloader.train.dataset.names`.
        json_file: annotations in COCO's format.
        image_root: folder of the images; `file_name` in the JSON is relative to it.
        sem_seg_root: folder of the label maps. Without it, images have no `sem_seg_file_name`.
        stuff_classes: the names of the labels in the label maps, in the order of their values. They
            can include the classes of things, as in COCO-Stuff.
        stuff_labels: the labels that are stuff, for panoptic output.
        stuff_dataset_id_to_contiguous_id: the label of each category id of `panoptic_json`, for
            panoptic evaluation.
        panoptic_json: panoptic annotations in COCO's format.
        panoptic_root: folder of its PNG files.
        ignore_label: value of pixels in label maps without a label.
        sem_seg_suffix: what replaces the image's extension in the name of its label map.
        evaluator_type: how a YAML config evaluates on the dataset: "coco" is `COCOEvaluator`,
            "voc_region" is `VOCRegionEvaluator` too; docs/configs.md has the others. A LazyConfig
            names its evaluators itself.
        prepare: called each time before the files are read, e.g. to download or to draw them.

    The same registration again changes nothing.

    Raises:
        ValueError: if `panoptic_json` or `panoptic_root` is given without the other, or if another
            dataset has the name already.
    """
    arguments = dict(locals())
    if (panoptic_json is None) != (panoptic_root is None):
        raise ValueError(f"Dataset '{name}': panoptic_json and panoptic_root come together")

    def load() -> list[dict]:
        if prepare is not None:
            prepare()
        dataset_dicts = _load_instances(name, json_file, image_root)
        if sem_seg_root is not None:
            _add_label_maps(dataset_dicts, name, image_root, sem_seg_root, sem_seg_suffix)
        return dataset_dicts

    if name in DatasetCatalog.list():
        _check_is_same(name, getattr(DatasetCatalog[name], "arguments", {}), arguments)
        return
    load.arguments = arguments
    DatasetCatalog.register(name, load)
    category_ids = stuff_dataset_id_to_contiguous_id
    metadata = {
        "json_file": json_file,
        "image_root": image_root,
        "evaluator_type": evaluator_type,
        "sem_seg_root": sem_seg_root,
        "ignore_label": None if sem_seg_root is None else ignore_label,
        "stuff_classes": None if stuff_classes is None else list(stuff_classes),
        "stuff_labels": None if stuff_labels is None else list(stuff_labels),
        "stuff_dataset_id_to_contiguous_id": None if category_ids is None else dict(category_ids),
        "panoptic_json": panoptic_json,
        "panoptic_root": panoptic_root,
    }
    given = {key: value for key, value in metadata.items() if value is not None}
    MetadataCatalog.get(name).set(**given)


def _check_is_same(name: str, before: dict, arguments: dict) -> None:
    """Raise a ValueError if a dataset was registered with other arguments."""
    for key, value in arguments.items():
        is_known = key in before
        if is_known and _comparable(before[key]) == _comparable(value):
            continue
        difference = f", with {key}={before[key]!r} in place of {value!r}" if is_known else ""
        raise ValueError(
            f"The dataset '{name}' is registered already{difference}. Choose another name, or call "
            f"DatasetCatalog.remove('{name}') and MetadataCatalog.remove('{name}') first."
        )


def _comparable(value: Any) -> Any:
    """Return what is equal for equal arguments; partial objects of equal parts are not."""
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    return list(value) if isinstance(value, tuple | range) else value


def _load_instances(name: str, json_file: str, image_root: str) -> list[dict]:
    """Call `load_coco_json`, with errors that name the file and say what to do."""
    where = f"Dataset '{name}'"
    if not PathManager.isfile(json_file):
        raise DatasetError(
            f"{where}: the annotation file '{json_file}' does not exist. Put it there, or set the "
            "environment variable DETECTRON2_DATASETS if it is a built-in dataset."
        )
    if not PathManager.isdir(image_root):
        raise DatasetError(
            f"{where}: the image folder '{image_root}' does not exist. Put the images there, or "
            "register the dataset with the folder they are in."
        )
    try:
        dataset_dicts = load_coco_json(json_file, image_root, name)
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        # str() of a KeyError is quoted, its argument is not.
        reason = error.args[0] if error.args else repr(error)
        raise DatasetError(
            f"{where}: '{json_file}' is not usable ({reason}). Compare it with COCO's format: "
            "lists `images`, `annotations` and `categories`, where the `category_id` of each "
            "annotation is the `id` of a category."
        ) from error
    if not dataset_dicts:
        raise DatasetError(f"{where}: `images` in '{json_file}' is empty or missing.")
    if not any(PathManager.isfile(image["file_name"]) for image in dataset_dicts):
        raise DatasetError(
            f"{where}: the image folder '{image_root}' has none of the {len(dataset_dicts)} images "
            f"of '{json_file}', the first of which is '{dataset_dicts[0]['file_name']}'. Put the "
            "images there, or register the dataset with the folder they are in."
        )
    return dataset_dicts


def _add_label_maps(
    dataset_dicts: list[dict], name: str, image_root: str, sem_seg_root: str, suffix: str
) -> None:
    """Add `sem_seg_file_name` to each dict: the path of its image, with another root and suffix."""
    for image in dataset_dicts:
        stem = os.path.splitext(os.path.relpath(image["file_name"], image_root))[0]
        image["sem_seg_file_name"] = os.path.join(sem_seg_root, stem + suffix)
        if not PathManager.isfile(image["sem_seg_file_name"]):
            raise DatasetError(
                f"Dataset '{name}': image '{image['file_name']}' has no label map, expected "
                f"`sem_seg_file_name` '{image['sem_seg_file_name']}'. Add it, or register the "
                "dataset without `sem_seg_root` to train without label maps."
            )
