"""The targets of the semantic branch: label maps that are read, or painted from instances.

Shapes: N images, (H, W) the size of an image.
"""

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.structures import BitMasks, Instances, PolygonMasks


class SemanticTargets:
    """Make the label maps that the semantic branch learns from.

    Other implementations of HTC can't train the semantic branch on a dataset without label maps.
    Here, a missing map is painted from the instances of the image: each pixel gets the class of the
    smallest instance that covers it. Where an instance has a box, but no mask ("gt_has_mask" is
    False), pixels that no other mask covers are ignored.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        num_things: int,
        source: str = "auto",
        unlabelled: str = "background",
        ignore_value: int = 255,
        thing_labels: Sequence[int] | None = None,
    ):
        """
        Args:
            num_classes: semantic classes of the branch; labels are in [0, num_classes).
            num_things: instance classes of the ROI heads.
            source: "sem_seg" takes the label map "sem_seg" that Detectron2's mapper reads,
                "instances" paints one, and "auto" paints if the image has no label map.
            unlabelled: the label of painted maps where no instance is: "background" for the last
                semantic class, or "ignore" for `ignore_value`. Crowd regions, which Detectron2's
                mapper drops, count as no instance.
            ignore_value: the label that the loss leaves out; also fills the padding.
            thing_labels: the semantic label of each instance class. Needed if a training uses both
                painted maps and maps that number the things differently (COCO-Stuff: category id
                minus one). Default: the label is the instance class.

        Raises:
            ValueError: for an unknown `source` or `unlabelled`, if `thing_labels` does not have
                `num_things` labels, or if painting needs labels outside [0, num_classes).
        """
        if source not in ("auto", "sem_seg", "instances"):
            raise ValueError(f"source={source!r} must be 'auto', 'sem_seg' or 'instances'")
        if unlabelled not in ("background", "ignore"):
            raise ValueError(f"unlabelled={unlabelled!r} must be 'background' or 'ignore'")
        labels = list(range(num_things)) if thing_labels is None else list(thing_labels)
        if len(labels) != num_things:
            raise ValueError(f"thing_labels has {len(labels)} labels for {num_things} classes")
        free_for_things = num_classes - (unlabelled == "background")
        if source != "sem_seg" and not all(0 <= label < free_for_things for label in labels):
            raise ValueError(
                f"Painting {num_things} instance classes needs semantic labels up to {max(labels)}"
                + (" and one more for the background" if unlabelled == "background" else "")
                + f", but the semantic branch has num_classes={num_classes}. Raise num_classes of "
                "the semantic branch, or set the targets' source to 'sem_seg'."
            )
        self.num_classes = num_classes
        self.source = source
        self.unlabelled_value = num_classes - 1 if unlabelled == "background" else ignore_value
        self.ignore_value = ignore_value
        self.thing_labels = torch.tensor(labels)

    @classmethod
    def from_config(cls, cfg, num_classes):
        branch = cfg.MODEL.SEMANTIC_BRANCH
        return {
            "num_classes": num_classes,
            "num_things": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "source": branch.TARGETS,
            "unlabelled": branch.UNLABELLED,
            "ignore_value": branch.IGNORE_VALUE,
            "thing_labels": branch.THING_LABELS or None,
        }

    def __call__(
        self,
        batched_inputs: list[dict],
        instances: list[Instances | None],
        size: tuple[int, int],
        device: torch.device | str,
    ) -> torch.Tensor:
        """Read or paint the label map of each image.

        Args:
            batched_inputs: N dicts of Detectron2's mapper, with "sem_seg" (H, W) if the image has a
                label map.
            instances: the ground truth of each image, on `device`; None for an image without
                instance labels. If it has no label map either, all of it is ignored.
            size: height and width of the padded batch.
            device: that of the model.

        Returns:
            (N, height, width) int64 labels, `ignore_value` in the padding.

        Raises:
            ValueError: for a missing label map or one with values out of range; the message names
                the file.
        """
        targets = []
        for inputs, ground_truth in zip(batched_inputs, instances, strict=True):
            target = torch.full(size, self.ignore_value, dtype=torch.long, device=device)
            height, width = inputs["image"].shape[-2:]
            if self.source == "instances" or (self.source == "auto" and "sem_seg" not in inputs):
                if ground_truth is not None:
                    target[:height, :width] = self.paint(ground_truth)
            else:
                target[:height, :width] = self._read(inputs)
            targets.append(target)
        return torch.stack(targets)

    def _read(self, inputs: dict) -> torch.Tensor:
        file_name = inputs.get("sem_seg_file_name") or inputs.get("file_name", "an image")
        if "sem_seg" not in inputs:
            raise ValueError(
                f"{file_name} has no label map, and the semantic targets' source is 'sem_seg'. "
                "Register label maps (sem_seg_file_name), or set the source to 'auto' or "
                "'instances'."
            )
        sem_seg = inputs["sem_seg"]
        wrong = (sem_seg != self.ignore_value) & ((sem_seg < 0) | (sem_seg >= self.num_classes))
        if wrong.any():
            raise ValueError(
                f"The label map of {file_name} has the value {sem_seg[wrong][0].item()}; the "
                f"semantic branch has num_classes={self.num_classes}, and {self.ignore_value} "
                "means ignore."
            )
        return sem_seg

    def paint(self, instances: Instances) -> torch.Tensor:
        """Paint the instances of one image, large ones first.

        Args:
            instances: with "gt_classes" and "gt_masks"; without "gt_masks", with "gt_boxes", which
                are painted instead. Of those whose "gt_has_mask" is False, the "gt_masks" are
                ignored, except where another instance is.

        Returns:
            (H, W) int64 labels.
        """
        height, width = instances.image_size
        device = instances.gt_boxes.device
        target = torch.full((height, width), self.unlabelled_value, dtype=torch.long, device=device)
        if len(instances) == 0:
            return target
        if not instances.has("gt_masks"):
            y = torch.arange(height, device=device)[:, None] + 0.5
            x = torch.arange(width, device=device) + 0.5
            x1, y1, x2, y2 = instances.gt_boxes.tensor[:, :, None, None].unbind(1)
            masks = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
        elif isinstance(instances.gt_masks, PolygonMasks):
            masks = BitMasks.from_polygon_masks(instances.gt_masks, height, width).tensor.to(device)
        else:
            masks = instances.gt_masks.tensor
        labels = self.thing_labels.to(device)[instances.gt_classes]
        if instances.has("gt_has_mask"):
            is_painted = instances.gt_has_mask
            target[masks[~is_painted].any(dim=0)] = self.ignore_value
            masks, labels = masks[is_painted], labels[is_painted]
        order = masks.flatten(1).sum(1).argsort(descending=True)  # stays on the device
        for mask, label in zip(
            masks[order], labels[order], strict=True
        ):  # without a wait for a GPU
            target = torch.where(mask, label, target)
        return target
