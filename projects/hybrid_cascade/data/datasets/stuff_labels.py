"""The labels of a dataset that are stuff, for panoptic output."""

from detectron2.data import MetadataCatalog


def stuff_labels_of(dataset_name: str) -> list[int]:
    """Return the labels that are stuff in the label maps of a dataset.

    They are the `stuff_labels` of the metadata (see `register_coco_json`). The metadata of
    Detectron2's panoptic datasets do not have them. There, `stuff_dataset_id_to_contiguous_id`
    lists the stuff, and label 0 is "things", the label that all things share.

    Args:
        dataset_name: the registered name.

    Raises:
        ValueError: if the metadata do not say which labels are stuff.
    """
    metadata = MetadataCatalog.get(dataset_name)
    labels = metadata.get("stuff_labels")
    if labels is None:
        things = metadata.get("thing_dataset_id_to_contiguous_id", {})
        ids = metadata.get("stuff_dataset_id_to_contiguous_id", {})
        labels = {label for category_id, label in ids.items() if category_id not in things}
        if metadata.get("stuff_classes", [""])[0] == "things":
            labels -= {0}
        labels = sorted(labels)
    if not labels:
        raise ValueError(
            f"Dataset '{dataset_name}' does not say which labels of its label maps are stuff. "
            "Give them to register_coco_json(stuff_labels=...), or to the model: "
            "model.stuff_labels=[...] (MODEL.SEMANTIC_BRANCH.STUFF_LABELS)."
        )
    return list(labels)
