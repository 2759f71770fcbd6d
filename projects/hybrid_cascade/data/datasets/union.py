"""Load several datasets to train on, of which some may have no instance labels."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

from detectron2.data import MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.build import check_metadata_consistency

from ..checks import DatasetError


def load_datasets(
    names: str | Sequence[str], *, proposal_files: Sequence[str] | None = None, **options: Any
) -> list[dict]:
    """Call `get_detection_dataset_dicts` for each dataset, and return the dicts of all.

    Detectron2 looks at the first image only to see whether images have "annotations". In a union,
    the images of one dataset may have them, and those of another label maps alone.

    Args:
        names: registered names.
        proposal_files: one for each dataset.
        options: the other arguments of `get_detection_dataset_dicts`.

    Raises:
        DatasetError: if images with and without "annotations" are in one dataset, or none is left.
        ValueError: if the datasets differ in their classes of things.
    """
    names = [names] if isinstance(names, str) else list(names)
    files = [None] * len(names) if proposal_files is None else [[f] for f in proposal_files]
    dicts = [
        _load(name, proposal_files=file, **options) for name, file in zip(names, files, strict=True)
    ]
    if len(names) == 1:
        return dicts[0]
    with_things = [name for name in names if MetadataCatalog.get(name).get("thing_classes")]
    if with_things and options.get("check_consistency", True):
        check_metadata_consistency("thing_classes", with_things)
    return list(chain.from_iterable(dicts))


def _load(name: str, **options: Any) -> Sequence[dict]:
    try:
        return get_detection_dataset_dicts(name, **options)
    except AssertionError as error:
        raise DatasetError(
            f"Dataset '{name}' has no image to train on ({error}). Images without objects are left "
            "out (`dataloader.train.dataset.filter_empty`, DATALOADER.FILTER_EMPTY_ANNOTATIONS)."
        ) from error
    except KeyError as error:
        if error.args != ("annotations",):
            raise
        raise DatasetError(
            f"Dataset '{name}': some images have `annotations`, others have none, not even an empty"
            " list. Register those without instance labels as a dataset of their own."
        ) from error
