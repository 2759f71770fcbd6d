"""Detectron2's test-time augmentation for R-CNN models that have no CfgNode, and soft-NMS in it."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import (
    DatasetMapperTTA,
    GeneralizedRCNN,
    GeneralizedRCNNWithTTA,
    PanopticFPN,
)
from detectron2.modeling.roi_heads import CascadeROIHeads, Res5ROIHeads, StandardROIHeads
from detectron2.structures import Boxes, Instances
from torch import nn

from ..cascade.roi_heads import HTCROIHeads


class RCNNWithTestTimeAugmentation(GeneralizedRCNNWithTTA):
    """`GeneralizedRCNNWithTTA` with the classes and thresholds of the model itself.

    Each view detects on its own, and the boxes of all views come together in one more suppression.
    Soft-NMS, where the model has it, runs there only, on the candidates of all views. The mask
    probabilities of the boxes are averaged over the views. (`HTCROIHeads` averages them over its
    stages first.)
    """

    def __init__(
        self,
        model: GeneralizedRCNN,
        short_sides: Sequence[int] = (),
        max_size: int = 1333,
        flip: bool = False,
    ):
        """
        Args:
            model: a `GeneralizedRCNN`, `SemanticRCNN` or `RCNNEnsemble`, with or without masks.
            short_sides: the sizes that images are resized to; none: as they come.
            max_size: bound of the longer side of resized images.
            flip: look at the mirrored views, too.

        Raises:
            ValueError: for a model of another kind, with keypoints, or without an RPN.
        """
        _check_can_augment(model)
        views = ViewsOfImage(list(short_sides), max_size, flip)
        super().__init__(_test_config(model), model, views)

    def __call__(self, batched_inputs: list[dict]) -> list[dict]:
        """As `GeneralizedRCNN.forward` in inference, "height" and "width" may be left out."""
        return super().__call__([_with_output_size(x) for x in batched_inputs])

    def _turn_off_roi_heads(self, attrs):
        # Soft-NMS is not idempotent: scores would decay in each view, and again where views meet.
        soft = ["soft_suppression_on"] if _suppresses_softly(self.model) else []
        return super()._turn_off_roi_heads([*attrs, *soft])

    def _merge_detections(self, all_boxes, all_scores, all_classes, shape_hw) -> Instances:
        if not _suppresses_softly(self.model) or not all_scores:
            return super()._merge_detections(all_boxes, all_scores, all_classes, shape_hw)
        candidates = Instances(
            shape_hw,
            pred_boxes=Boxes(all_boxes),
            scores=torch.stack(all_scores),
            pred_classes=torch.stack(all_classes),
        )
        candidates.pred_boxes.clip(shape_hw)
        return self.model.roi_heads.suppress_softly(candidates)


class ViewsOfImage(DatasetMapperTTA):
    """`DatasetMapperTTA` that leaves the size of images as it is where it is given no sizes."""

    def __call__(self, dataset_dict: dict) -> list[dict]:
        if self.min_sizes:
            return super().__call__(dataset_dict)
        size = dataset_dict["image"].shape[1:]
        return DatasetMapperTTA([min(size)], max(size), self.flip)(dataset_dict)


def _check_can_augment(model: nn.Module) -> None:
    if not isinstance(model, GeneralizedRCNN) or isinstance(model, PanopticFPN):
        raise ValueError(f"Test-time augmentation needs an R-CNN, not a {type(model).__name__}")
    heads = model.roi_heads
    if not isinstance(heads, StandardROIHeads | Res5ROIHeads):
        raise ValueError(
            "Test-time augmentation needs HTCROIHeads or Detectron2's StandardROIHeads, "
            f"CascadeROIHeads or Res5ROIHeads, not {type(heads).__name__}"
        )
    if getattr(heads, "keypoint_on", False):
        raise ValueError("Test-time augmentation can't average keypoints")
    if model.proposal_generator is None:
        raise ValueError("Test-time augmentation needs an RPN; the model has none")


def _with_output_size(x: dict) -> dict:
    if "image" not in x:
        return x
    height, width = x["image"].shape[1:]
    return {"height": height, "width": width, **x}


def _suppresses_softly(model: GeneralizedRCNN) -> bool:
    return getattr(model.roi_heads, "soft_nms", "none") != "none"


def _test_config(model: GeneralizedRCNN) -> CfgNode:
    """The keys that `GeneralizedRCNNWithTTA` reads."""
    heads = model.roi_heads
    predictor = heads.box_predictor
    if isinstance(heads, HTCROIHeads):
        predictor = heads.final_predictor
    elif isinstance(heads, CascadeROIHeads):
        predictor = predictor[-1]
    cfg = get_cfg()
    cfg.MODEL.MASK_ON = heads.mask_on
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = heads.num_classes
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST = predictor.test_nms_thresh
    cfg.TEST.DETECTIONS_PER_IMAGE = predictor.test_topk_per_image
    return cfg
