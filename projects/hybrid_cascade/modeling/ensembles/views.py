"""Detectron2's test-time augmentation for R-CNN models that have no CfgNode, and soft-NMS in it.

Each resized or mirrored copy of an image is called a view.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

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
from ..inference_steps import detect_boxes
from .averaging import RCNNEnsemble
from .sizes import size_limits


class RCNNWithTestTimeAugmentation(GeneralizedRCNNWithTTA):
    """`GeneralizedRCNNWithTTA` with the classes and thresholds of the model itself.

    The model detects boxes in each view, and one more suppression merges those of all views. If the
    model has soft-NMS, it runs in this last suppression only, on the candidates of all views. The
    mask probabilities of the boxes are averaged over the views. (`HTCROIHeads` averages them over
    its stages first.)
    """

    def __init__(
        self,
        model: GeneralizedRCNN,
        short_sides: Sequence[int] = (),
        max_size: int | Sequence[int] = 1333,
        flip: bool = False,
    ):
        """
        Args:
            model: a `GeneralizedRCNN`, `SemanticRCNN` or `RCNNEnsemble` in eval mode, with or
                without masks.
            short_sides: lengths in pixels that the shorter side is resized to; if empty, images
                keep their size.
            max_size: upper bound in pixels of the longer side of resized images; or a list with one
                for each short side.
            flip: whether to add a mirrored view of each size.

        Raises:
            ValueError: for a model of another kind, with keypoints, or without an RPN, or if
                `max_size` and `short_sides` are lists of different lengths.
        """
        _check_can_augment(model)
        views = ViewsOfImage(list(short_sides), max_size, flip)
        super().__init__(_test_config(model), model, views)

    def __call__(self, batched_inputs: list[dict]) -> list[dict]:
        """Detect as `GeneralizedRCNN.forward`; "height" and "width" may be left out."""
        return super().__call__([_with_output_size(x) for x in batched_inputs])

    def _turn_off_roi_heads(self, attrs: Sequence[str]) -> AbstractContextManager[None]:
        # Detectron2 flips attributes of the model here. `_batch_inference` asks for boxes instead.
        return nullcontext()

    def _batch_inference(
        self, batched_inputs: list[dict], detected_instances: list[Instances] | None = None
    ) -> list[Instances]:
        if detected_instances is not None:
            return super()._batch_inference(batched_inputs, detected_instances)
        of_ensemble = isinstance(self.model, RCNNEnsemble)
        found = []
        for start in range(0, len(batched_inputs), self.batch_size):
            batch = batched_inputs[start : start + self.batch_size]
            # Soft-NMS is not idempotent: scores would decay in each view, and again when merged.
            found += (
                self.model.detect_boxes(batch, soft_suppression=False)
                if of_ensemble
                else detect_boxes(self.model, batch, soft_suppression=False)
            )
        return found

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
    """`DatasetMapperTTA` that keeps the size of images if `min_sizes` is empty.

    `max_size` may be a list with a bound for each of the `min_sizes`.
    """

    def __init__(self, min_sizes: list[int], max_size: int | Sequence[int], flip: bool):
        super().__init__(min_sizes, max_size, flip)
        self._sizes = list(zip(min_sizes, size_limits(min_sizes, max_size), strict=True))

    def __call__(self, dataset_dict: dict) -> list[dict]:
        size = dataset_dict["image"].shape[1:]
        return [
            view
            for short_side, limit in self._sizes or [(min(size), max(size))]
            for view in DatasetMapperTTA([short_side], limit, self.flip)(dataset_dict)
        ]


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
    """Make a config of the keys that `GeneralizedRCNNWithTTA` reads."""
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
