"""Check the data of a config against its model, before the first iteration or detection."""

from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager
from torch import nn

from ..data import check_coco_file, check_dataset, check_training_labels
from ..data.checks import check_same_classes, has_coco_file
from ..modeling import HTCROIHeads, MNCROIHeads
from .run_config import RunConfig

EVALUATED_WITH_MASKS = ("coco", "voc_region", "coco_panoptic_seg")  # `evaluator_type`


def check_annotation_files(
    run_config: RunConfig, train_names: Sequence[str], model: nn.Module
) -> None:
    """Check the files of the datasets to train on and to evaluate on, before they are loaded.

    Raises:
        DatasetError: see `check_coco_file`.
    """
    test_names = run_config.test_dataset_names
    for name in dict.fromkeys([*train_names, *test_names]):
        json_file = MetadataCatalog.get(name).get("json_file")
        if json_file is None or not PathManager.isfile(json_file):
            DatasetCatalog.get(name)  # some datasets write their files when they are first loaded
        if has_coco_file(name):
            check_coco_file(
                name,
                evaluation=name in test_names,
                masks=_needed_masks(_first_model(model)) != "none",
                stop=run_config.stops_at_data_faults,
            )


def check_train_data(
    run_config: RunConfig, names: Sequence[str], dataset: Sequence[dict], model: nn.Module
) -> None:
    """Check the loaded images to train on.

    Raises:
        DatasetError: see `check_training_labels` and `check_dataset`.
    """
    check_training_labels(
        dataset,
        " + ".join(names),
        masks=_needed_masks(model),
        mask_format=run_config.mask_format,
        reads_label_maps=_reads_label_maps(model),
    )
    _check_dataset(run_config, model, dataset, names)


def check_test_data(
    run_config: RunConfig, model: nn.Module, train_names: Sequence[str] = ()
) -> None:
    """Load and check the datasets to evaluate on.

    Raises:
        DatasetError: see `check_dataset` and `check_same_classes`.
    """
    model = _first_model(model)
    names = run_config.test_dataset_names
    for name in names:
        kind = MetadataCatalog.get(name).get("evaluator_type", "coco")
        masks = kind in EVALUATED_WITH_MASKS and _needed_masks(model) != "none"
        options = {"evaluation": True, "masks": masks}
        _check_dataset(run_config, model, DatasetCatalog.get(name), [name], **options)
    for train_name in train_names:
        metadata = MetadataCatalog.get(train_name).as_dict()
        source = f"'{train_name}', which is trained on"
        check_same_classes(metadata, source, names, stop=run_config.stops_at_data_faults)


def _check_dataset(
    run_config: RunConfig,
    model: nn.Module,
    dataset: Sequence[dict],
    names: Sequence[str],
    **options: bool,
) -> None:
    """Check a dataset against the model, if the model says how many classes it has."""
    # A single-shot detector has no ROI heads and holds the number itself.
    num_classes = getattr(getattr(model, "roi_heads", model), "num_classes", None)
    if num_classes is None:
        return
    if _reads_label_maps(model):
        branch = model.semantic_branch
        options["semantic_num_classes"] = branch.num_classes
        options["semantic_ignore_value"] = branch.ignore_value
    check_dataset(
        dataset,
        names,
        num_classes=num_classes,
        decode=run_config.decodes_images,
        stop=run_config.stops_at_data_faults,
        **options,
    )


def _first_model(model: nn.Module) -> nn.Module:
    """Return the first of the models that detect together, or the model itself."""
    while not hasattr(model, "roi_heads"):
        if hasattr(model, "models"):
            model = model.models[0]
        elif isinstance(getattr(model, "model", None), nn.Module):
            model = model.model
        else:
            break
    return model


def _reads_label_maps(model: nn.Module) -> bool:
    targets = getattr(model, "semantic_targets", None)
    return targets is not None and targets.source != "instances"


def _needed_masks(model: nn.Module) -> str:
    """Return the argument `masks` of `check_training_labels` for a model."""
    heads = getattr(model, "roi_heads", None)
    if isinstance(heads, MNCROIHeads):
        return "some"
    if not getattr(heads, "mask_on", False):
        return "none"
    return "some" if isinstance(heads, HTCROIHeads) else "all"
