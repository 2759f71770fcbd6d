"""A dataset mapper for augmentations that depend on boxes."""

import copy

import numpy as np
from detectron2.data.transforms import AugInput, TransformList
from detectron2.structures import BoxMode

from .partial_masks import PartialMasksMapper


class BoxAwareMapper(PartialMasksMapper):
    """`PartialMasksMapper` that passes the boxes to its augmentations.

    Without boxes, Detectron2's `MinIoURandomCrop` does nothing, without an error or a warning.
    """

    def __call__(self, dataset_dict: dict) -> dict:
        """Map an image as `PartialMasksMapper` does. Boxes of crowds are not passed on."""
        boxes = [
            BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS)
            for x in dataset_dict.get("annotations", [])
            if not x.get("iscrowd", 0)
        ]

        def augment(aug_input: AugInput) -> TransformList:
            aug_input.boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
            return self.augmentations(aug_input)

        # The augmentations of a copy are replaced, so that calls do not see each other's boxes.
        mapper = copy.copy(self)
        mapper.augmentations = augment
        return super(BoxAwareMapper, mapper).__call__(dataset_dict)
