"""The names and colours of the classes that a model knows."""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.data import Metadata, MetadataCatalog


def find_class_names(
    trained_with: Mapping[str, Sequence[str]], dataset_name: str | None
) -> Metadata:
    """Return metadata with the names of a checkpoint's classes, and the colours of a dataset's.

    Args:
        trained_with: what `load_weights` returned. What it lacks is taken from the dataset.
        dataset_name: of the config's test dataset, or another one; None if there is none.

    Returns:
        Metadata with `thing_classes`, `stuff_classes`, `thing_colors` and `stuff_colors`, as far as
        they are known, and `ignore_label`. Colours are those of the dataset if it has these names.
    """
    known: dict[str, Any] = MetadataCatalog.get(dataset_name).as_dict() if dataset_name else {}
    found = {"ignore_label": known["ignore_label"]} if "ignore_label" in known else {}
    for kind in ("thing", "stuff"):
        names = list(known.get(f"{kind}_classes") or [])
        trained = list(trained_with.get(f"{kind}_classes") or names)
        if trained:
            found[f"{kind}_classes"] = trained
        if trained == names and known.get(f"{kind}_colors"):
            found[f"{kind}_colors"] = known[f"{kind}_colors"]
    return Metadata(**found)
