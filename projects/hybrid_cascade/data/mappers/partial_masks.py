"""A dataset mapper for data in which some instances have masks, and others only boxes."""

from detectron2.data import DatasetMapper
from detectron2.data.transforms import TransformList
from detectron2.structures import BoxMode

from ..checks import has_mask


class PartialMasksMapper(DatasetMapper):
    """`DatasetMapper` that takes instances without a "segmentation" beside others that have one.

    With `use_instance_mask`, an image with such instances gets a field "gt_has_mask", (G,) bool.
    Where it is False, "gt_masks" has the box, which stands in for the mask: losses of masks and
    painted label maps leave it out. Images whose instances all have masks have no such field.
    """

    def _transform_annotations(
        self, dataset_dict: dict, transforms: TransformList, image_shape: tuple[int, int]
    ) -> None:
        annotations = [x for x in dataset_dict["annotations"] if not x.get("iscrowd", 0)]
        if not self.use_instance_mask or all(has_mask(x) for x in annotations):
            super()._transform_annotations(dataset_dict, transforms, image_shape)
            return
        # Detectron2 drops instances that the augmentations have cropped away, and keeps of the
        # others the class only. So the class tells: it is below 0 for those without a mask.
        dataset_dict["annotations"] = [
            x if has_mask(x) else with_box_as_mask(x) for x in annotations
        ]
        super()._transform_annotations(dataset_dict, transforms, image_shape)
        instances = dataset_dict["instances"]
        classes = instances.gt_classes
        instances.gt_has_mask = classes >= 0
        instances.gt_classes = classes.where(classes >= 0, -1 - classes)


def with_box_as_mask(annotation: dict) -> dict:
    """Return the annotation with its box as the polygon, and the category c as -1 - c."""
    mode = annotation["bbox_mode"]
    x1, y1, x2, y2 = BoxMode.convert(annotation["bbox"], mode, BoxMode.XYXY_ABS)
    return {
        **annotation,
        "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
        "category_id": -1 - annotation["category_id"],
    }
