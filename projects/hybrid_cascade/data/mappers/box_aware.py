"""A dataset mapper for augmentations that depend on the boxes."""

import copy

import numpy as np
from detectron2.data import DatasetMapper
from detectron2.data.transforms import AugInput, TransformList
from detectron2.structures import BoxMode


class BoxAwareMapper(DatasetMapper):
    """`DatasetMapper` that shows the boxes to its augmentations.

    Without them Detectron2's `MinIoURandomCrop` does nothing, and does not say so.
    """

    def __call__(self, dataset_dict: dict) -> dict:
        """See `DatasetMapper`. Crowd regions are not shown."""
        boxes = [
            BoxMode.convert(x["bbox"], x["bbox_mode"], BoxMode.XYXY_ABS)
            for x in dataset_dict.get("annotations", [])
            if not x.get("iscrowd", 0)
        ]

        def augment(aug_input: AugInput) -> TransformList:
            aug_input.boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
            return self.augmentations(aug_input)

        mapper = copy.copy(self)
        mapper.augmentations = augment
        return super(BoxAwareMapper, mapper).__call__(dataset_dict)
