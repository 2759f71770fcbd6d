"""Simple Copy-Paste (Ghiasi et al., arXiv 2012.07177): instances of one image pasted into another.

Shapes: G instances in an image, (H, W) its size.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.structures import BitMasks, Boxes, Instances
from torch.nn import functional as F


class CopyPasteMapper:
    """A mapper that pastes a random subset of another image's instances into each image.

    Both images are mapped by the `DatasetMapper` that this one wraps, with its augmentations (in
    the paper: large-scale jitter and flips). Pasted instances cover those of the image: their
    masks lose the covered parts, their boxes shrink, and instances that are covered entirely are
    dropped. Label maps ("sem_seg") get the labels of the pasted pixels. Edges are not blended:
    according to the paper, that does not help.

    Random numbers are drawn with numpy, which Detectron2 seeds in each worker of a data loader.
    """

    def __init__(
        self,
        mapper: Callable[[dict], dict],
        dataset: Sequence[dict],
        *,
        probability: float = 1.0,
        max_instances: int = 100,
        sem_seg_ignore_value: int = 255,
    ):
        """
        Args:
            mapper: a `DatasetMapper` for training, with `use_instance_mask`.
            dataset: the dicts of the images to copy from, in Detectron2's format.
            probability: the probability in [0, 1] that an image gets instances of another one.
            max_instances: most instances to paste into an image. Their number is drawn uniformly
                from 0 to the smaller of this and G of the other image.
            sem_seg_ignore_value: the label of pasted pixels whose image has no label map.

        Raises:
            ValueError: for an empty `dataset`, or a `probability` or `max_instances` out of range.
        """
        if len(dataset) == 0:
            raise ValueError("dataset is empty: there is nothing to copy from")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability={probability} is not in [0, 1]")
        if max_instances < 1:
            raise ValueError(f"max_instances={max_instances} must be at least 1")
        self.mapper = mapper
        self.dataset = DatasetFromList(list(dataset), copy=False)  # serialized, shared by workers
        self.probability = probability
        self.max_instances = max_instances
        self.sem_seg_ignore_value = sem_seg_ignore_value

    def __call__(self, dataset_dict: dict) -> dict | None:
        """Map an image, and paste instances of another image into it.

        Args:
            dataset_dict: the image to paste into.

        Returns:
            What the wrapped mapper returns. "instances" always have "gt_boxes", "gt_classes",
            "gt_masks", as `BitMasks`, and "gt_has_mask" (see `PartialMasksMapper`). Instances
            without a mask are not pasted. None if the wrapped mapper skips the image.

        Raises:
            ValueError: if instances have no masks, or fields that cannot be updated, such as
                keypoints. The message names the file.
        """
        mapped = self._map(dataset_dict)
        if mapped is not None and np.random.uniform() < self.probability:
            source = self._map(self.dataset[np.random.randint(len(self.dataset))])
            if source is not None:
                self._paste(source, mapped)
        return mapped

    def _map(self, dataset_dict: dict) -> dict | None:
        """Map an image with the wrapped mapper, and turn its masks into `BitMasks`."""
        mapped = self.mapper(dataset_dict)
        if mapped is None:
            return None
        file_name = dataset_dict.get("file_name", "an image")
        if "instances" not in mapped:
            raise ValueError(
                f"{file_name} is mapped to no instances: Copy-Paste needs annotations, and a "
                "mapper with is_train=True"
            )
        instances = mapped["instances"]
        if not instances.has("gt_masks"):
            if len(instances) > 0:
                raise ValueError(
                    f"The instances of {file_name} have no masks, which Copy-Paste needs: set "
                    "use_instance_mask=True in the mapper"
                )
            instances.gt_masks = BitMasks(torch.zeros(0, *instances.image_size, dtype=torch.bool))
        if not instances.has("gt_has_mask"):
            instances.gt_has_mask = torch.ones(len(instances), dtype=torch.bool)
        extra = set(instances.get_fields()) - {"gt_boxes", "gt_classes", "gt_masks", "gt_has_mask"}
        if extra:
            raise ValueError(f"Copy-Paste can't update {sorted(extra)} of {file_name}")
        if not isinstance(instances.gt_masks, BitMasks):
            instances.gt_masks = BitMasks.from_polygon_masks(
                instances.gt_masks, *instances.image_size
            )
        return mapped

    def _paste(self, source: dict, target: dict) -> None:
        """Paste a random subset of the instances of `source` into `target`, in place.

        Images of different sizes are aligned at their upper left corners.
        """
        candidates = source["instances"]
        candidates = candidates[candidates.gt_has_mask]
        number = np.random.randint(min(len(candidates), self.max_instances) + 1)
        chosen = np.random.permutation(len(candidates))[:number]
        height, width = target["instances"].image_size
        pasted = _resize_canvas(candidates[torch.as_tensor(chosen)], height, width)
        covered = pasted.gt_masks.tensor.any(dim=0)  # (H, W), all False if nothing is pasted
        target["instances"] = Instances.cat([_cut(target["instances"], ~covered), pasted])
        image = _fit(source["image"], height, width, 0)
        target["image"] = torch.where(covered, image, target["image"])
        if "sem_seg" in target:
            labels = self.sem_seg_ignore_value
            if "sem_seg" in source:
                labels = _fit(source["sem_seg"], height, width, self.sem_seg_ignore_value)
            target["sem_seg"] = torch.where(covered, labels, target["sem_seg"])


def _fit(x: torch.Tensor, height: int, width: int, value: int) -> torch.Tensor:
    """Crop or pad `x` (..., any height, any width) at the right and the bottom to (..., H, W)."""
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]), value=value)


def _resize_canvas(instances: Instances, height: int, width: int) -> Instances:
    """Return the instances on an image of another size, without what lies outside of it."""
    # Instances cannot be resized: their fields are put into new ones, with masks that fit.
    moved = Instances((height, width), **instances.get_fields())
    masks = instances.gt_masks.tensor
    moved.gt_masks = BitMasks(_fit(masks, height, width, 0))
    moved.gt_boxes.clip((height, width))  # an annotated box can be wider than its mask
    return _shrink(moved, masks.flatten(1).sum(1))


def _cut(instances: Instances, visible: torch.Tensor) -> Instances:
    """Return the instances with the part of their masks that is `visible`, (H, W) bool."""
    areas = instances.gt_masks.tensor.flatten(1).sum(1)
    instances.gt_masks = BitMasks(instances.gt_masks.tensor & visible)
    return _shrink(instances, areas)


def _shrink(instances: Instances, areas: torch.Tensor) -> Instances:
    """Drop instances without a mask, and fit boxes to those masks that have become smaller.

    Args:
        instances: with masks that are cut already, and boxes that are not.
        areas: (G,) areas of the masks in pixels before they were cut.
    """
    left = instances.gt_masks.tensor.flatten(1).sum(1)
    boxes = instances.gt_masks.get_bounding_boxes().tensor
    kept = instances.gt_boxes.tensor
    instances.gt_boxes = Boxes(torch.where((left < areas)[:, None], boxes, kept))
    return instances[left > 0]
