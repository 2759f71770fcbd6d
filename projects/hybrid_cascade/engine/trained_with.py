"""What a checkpoint says of its training beside the weights: classes, and how images came in."""

from collections.abc import Mapping
from typing import Any

from detectron2.data import MetadataCatalog
from torch import nn

KEY = "trained_with"  # of the checkpoint
CLASSES = ("thing_classes", "stuff_classes")
PREPARATION = ("input_format", "pixel_mean", "pixel_std")


def describe_training(model: nn.Module, dataset_name: str) -> dict[str, Any]:
    """Return the names of the classes of a dataset, and how the model takes images.

    Args:
        model: with `input_format`, `pixel_mean` and `pixel_std`, as far as it has them.
        dataset_name: of the dataset that is trained on; it must be loaded.

    Returns:
        Lists, numbers and strings under some of the names of `CLASSES` and `PREPARATION`.
    """
    metadata = MetadataCatalog.get(dataset_name)
    classes = {key: list(metadata.get(key)) for key in CLASSES if metadata.get(key)}
    return classes | _preparation(model)


def read_description(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says of its training, without what `describe_training` can't have
    written; {} if it says nothing."""
    found = checkpoint.get(KEY)
    if not isinstance(found, dict):
        return {}
    classes = {key: found[key] for key in CLASSES if _is_list_of_names(found.get(key))}
    return classes | {key: found[key] for key in PREPARATION if key in found}


def differences(trained_with: Mapping[str, Any], model: nn.Module) -> list[str]:
    """Say in what a model takes images in another way than the model of a checkpoint did.

    Args:
        trained_with: what `describe_training` returned for that one; {} if it is not known.
        model: the model that gets the weights.
    """
    now = _preparation(model)
    return [
        f"{key} {trained_with[key]} instead of {now[key]}"
        for key in PREPARATION
        if key in trained_with and key in now and trained_with[key] != now[key]
    ]


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _preparation(model: nn.Module) -> dict[str, Any]:
    found = {key: getattr(model, key, None) for key in PREPARATION}
    for key in ("pixel_mean", "pixel_std"):
        if found[key] is not None:
            found[key] = [round(x, 4) for x in found[key].flatten().tolist()]
    return {key: value for key, value in found.items() if value is not None}
