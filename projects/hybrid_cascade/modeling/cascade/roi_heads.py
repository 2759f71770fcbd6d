"""Hybrid Task Cascade RoI heads (arXiv 1901.07518, Section 3).

N images, R RoIs, C channels, K instance classes, T stages, D detections that remain, M side of a
mask (28). Stages count from 0 in code and from 1 in the paper.
"""

import logging
import math
from collections.abc import Iterator, Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    CascadeROIHeads,
    FastRCNNOutputLayers,
)
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn
from torchvision.ops import clip_boxes_to_image

from ...layers.soft_nms import METHODS as SOFT_NMS_METHODS
from ..poolers import FusedROIPooler
from .class_boxes import boxes_of_classes, predicted_classes
from .inference import BoxStage, CascadeInference
from .mask_branch import build_information_flow, mask_logits, stages_with_masks
from .training import CascadeTraining

logger = logging.getLogger(__name__)

CHOICES = {
    "mask_stages": ("first", "last", "all"),
    "semantic_fusion": ("none", "box", "mask", "both"),
    "soft_nms": ("none", *SOFT_NMS_METHODS),
}


@ROI_HEADS_REGISTRY.register()
class HTCROIHeads(CascadeInference, CascadeTraining, CascadeROIHeads):
    """Detectron2's box cascade with a mask branch at its stages.

    Each idea of the paper is a switch. The rows of its ablation (Table 3) and Cascade Mask R-CNN
    are this class with switches off:

    - interleaved execution: the mask branch of a stage trains on the boxes that the box branch of
      the same stage has refined (Eq. 2), not on the boxes that entered the stage (Eq. 1);
    - mask information flow: the mask branch of a stage also sees the features of the stage before,
      through a 1x1 convolution (Eq. 3, 4);
    - semantic fusion: RoI features of a semantic map are added to those of the pyramid (Eq. 5).

    At inference the class probabilities are averaged over the box stages. The mask branches of all
    stages see the final boxes, and their mask probabilities are averaged too.
    """

    @configurable
    def __init__(
        self,
        *,
        mask_heads: Sequence[nn.Module] = (),
        mask_stages: str = "all",
        interleaved: bool = True,
        mask_information_flow: bool = True,
        resample_stages: bool = False,
        semantic_fusion: str = "none",
        semantic_pooler: ROIPooler | None = None,
        semantic_in_feature: str = "semantic",
        stage_loss_weights: Sequence[float] | None = (1.0, 0.5, 0.25),
        scale_box_gradients: bool = False,
        test_stages: int | None = None,
        average_scores: bool = True,
        average_logits: bool = False,
        average_masks: bool = True,
        soft_nms: str = "none",
        soft_nms_sigma: float = 0.5,
        soft_nms_score_thresh: float = 0.001,
        **kwargs,
    ):
        """
        Args:
            mask_heads: T mask heads for `mask_stages="all"`, one for "first" and "last", none for a
                cascade of boxes only. With information flow they must be
                `MaskRCNNConvUpsampleHead`s or have its attributes.
            mask_stages: the stages that have a mask branch: "first", "last" or "all".
            interleaved: train masks on the refined boxes, matched and sampled again at the IoU
                threshold of the stage, ground-truth boxes added.
            mask_information_flow: needs a mask branch at every stage to have an effect.
            resample_stages: stages after the first match and sample the refined boxes again, as
                MMDetection does: boxes refined from the ground truth are left out, and the ground
                truth is added. False: all refined boxes go on, as in Detectron2.
            semantic_fusion: the branches that see semantic features: "none", "box", "mask", "both".
            semantic_pooler: pools the semantic map, at least as large as the other poolers' output;
                required unless `semantic_fusion` is "none".
            semantic_in_feature: the key of the semantic map among the features.
            stage_loss_weights: the paper's alpha, a factor of the box and mask losses of each
                stage, not negative. None: 1 for every stage.
            scale_box_gradients: Detectron2's convention: gradients from the box branch into the
                features are scaled by 1/T.
            test_stages: inference runs this many stages, from the first on; None for all. May be
                changed at any time.
            average_scores: class probabilities are the mean over the stages that ran, or those of
                the last.
            average_logits: average the logits of the classes instead, as MMDetection does.
            average_masks: as `average_scores`, for mask probabilities. (MMDetection 3 takes the
                last.)
            soft_nms: how overlapping boxes are suppressed. "none": by Detectron2's NMS. "linear"
                and "gaussian": by soft-NMS, see `layers.soft_nms`; the IoU threshold of the linear
                one is the predictors' `test_nms_thresh`. May be changed at any time.
            soft_nms_sigma: of "gaussian".
            soft_nms_score_thresh: boxes whose score decays to this or less are dropped.
            kwargs: the arguments of `CascadeROIHeads` except `mask_head`.

        Raises:
            ValueError: for switches that contradict each other or the number of stages, or numbers
                that are not as above.
        """
        super().__init__(mask_head=nn.ModuleList(mask_heads), **kwargs)
        num_stages = self.num_cascade_stages
        if stage_loss_weights is None:
            stage_loss_weights = (1.0,) * num_stages
        chosen = {
            "mask_stages": mask_stages,
            "semantic_fusion": semantic_fusion,
            "soft_nms": soft_nms,
        }
        for name, value in chosen.items():
            if value not in CHOICES[name]:
                raise ValueError(f"{name}={value!r} is not one of {CHOICES[name]}")
        mask_head_stages = stages_with_masks(mask_stages, num_stages) if self.mask_on else []
        num_weights, num_heads = len(stage_loss_weights), len(mask_head_stages)
        checks = [
            (
                semantic_fusion == "none" or semantic_pooler is not None,
                f"semantic_fusion={semantic_fusion!r} needs a semantic_pooler",
            ),
            (
                num_weights == num_stages,
                f"stage_loss_weights has {num_weights} weights for {num_stages} stages",
            ),
            (
                all(0 <= w < math.inf for w in stage_loss_weights),
                f"stage_loss_weights={list(stage_loss_weights)} has weights that are negative, "
                "infinite or NaN",
            ),
            (
                average_scores or not average_logits,
                "average_logits=True contradicts average_scores=False",
            ),
            (soft_nms_sigma > 0, f"soft_nms_sigma={soft_nms_sigma} is not positive"),
            (soft_nms_score_thresh >= 0, f"{soft_nms_score_thresh=} is negative or NaN"),
            (
                len(mask_heads) == num_heads or not self.mask_on,
                f"mask_stages={mask_stages!r} of {num_stages} stages needs {num_heads} mask heads, "
                f"not {len(mask_heads)}",
            ),
        ]
        for holds, problem in checks:
            if not holds:
                raise ValueError(problem)
        self.mask_stages = mask_stages
        self.interleaved = interleaved
        self.resample_stages = resample_stages
        self.semantic_fusion = semantic_fusion
        self.semantic_in_feature = semantic_in_feature
        self.stage_loss_weights = stage_loss_weights
        self.scale_box_gradients = scale_box_gradients
        self.test_stages = test_stages
        self._num_test_stages(None)  # raises if there are fewer
        self.average_scores = average_scores
        self.average_logits = average_logits
        self.average_masks = average_masks
        self.soft_nms = soft_nms
        self.soft_nms_sigma = soft_nms_sigma
        self.soft_nms_score_thresh = soft_nms_score_thresh

        # The index of the mask head of each stage that has one.
        self.mask_head_of_stage = {stage: i for i, stage in enumerate(mask_head_stages)}
        with_flow = self.mask_on and mask_information_flow
        self.mask_information_flow = build_information_flow(mask_heads if with_flow else [])
        self._fuse_semantic_features(semantic_pooler)

    @classmethod
    def from_config(cls, cfg, input_shape):
        htc = cfg.MODEL.ROI_HTC_HEAD
        args = super().from_config(cfg, input_shape)
        fusion = htc.SEMANTIC_FUSION
        if fusion == "auto":
            fusion = "both" if htc.SEMANTIC_IN_FEATURE in input_shape else "none"
        if fusion != "none":
            if htc.SEMANTIC_IN_FEATURE not in input_shape:
                raise ValueError(
                    f"MODEL.ROI_HTC_HEAD.SEMANTIC_FUSION is {fusion!r}, but there is no feature "
                    f"{htc.SEMANTIC_IN_FEATURE!r}. Set MODEL.META_ARCHITECTURE to SemanticRCNN "
                    "(with a SemanticPyramid, MODEL.SEMANTIC_BRANCH.OUTPUT_CONTEXT_MAP to True "
                    "too), or SEMANTIC_FUSION to 'none'."
                )
            args["semantic_pooler"] = ROIPooler(
                output_size=htc.SEMANTIC_POOLER_RESOLUTION,
                scales=(1.0 / input_shape[htc.SEMANTIC_IN_FEATURE].stride,),
                sampling_ratio=cfg.MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO,
                pooler_type=cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE,
            )
        return {
            **args,
            "mask_stages": htc.MASK_STAGES,
            "interleaved": htc.INTERLEAVED,
            "resample_stages": htc.RESAMPLE_STAGES,
            "mask_information_flow": htc.MASK_INFORMATION_FLOW,
            "semantic_fusion": fusion,
            "semantic_in_feature": htc.SEMANTIC_IN_FEATURE,
            "stage_loss_weights": htc.STAGE_LOSS_WEIGHTS or None,
            "scale_box_gradients": htc.SCALE_BOX_GRADIENTS,
            "test_stages": htc.TEST_STAGES or None,
            "average_scores": htc.AVERAGE_SCORES,
            "average_logits": htc.AVERAGE_LOGITS,
            "average_masks": htc.AVERAGE_MASKS,
            "soft_nms": htc.SOFT_NMS,
            "soft_nms_sigma": htc.SOFT_NMS_SIGMA,
            "soft_nms_score_thresh": htc.SOFT_NMS_SCORE_THRESH,
        }

    @classmethod
    def _init_box_head(cls, cfg, input_shape):
        if cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
            return super()._init_box_head(cfg, input_shape)
        logger.info(
            "Boxes are regressed for each class. Published HTC models have "
            "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG True."
        )
        agnostic = cfg.clone()  # Detectron2's cascade asks for it
        agnostic.merge_from_list(["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True])
        args = super()._init_box_head(agnostic, input_shape)
        args["box_predictors"] = [
            FastRCNNOutputLayers(
                cfg,
                ShapeSpec(channels=predictor.cls_score.in_features),
                box2box_transform=predictor.box2box_transform,
            )
            for predictor in args["box_predictors"]
        ]
        return args

    @classmethod
    def _init_mask_head(cls, cfg, input_shape):
        all_stages = cfg.MODEL.ROI_HTC_HEAD.MASK_STAGES == "all"
        init_one = super()._init_mask_head
        args = [
            init_one(cfg, input_shape)
            for _ in range(len(cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS) if all_stages else 1)
        ]
        heads = [a.pop("mask_head") for a in args if a]
        return {**args[0], "mask_heads": heads}

    def _fuse_semantic_features(self, semantic_pooler: nn.Module | None) -> None:
        """Let the poolers of the branches named by `semantic_fusion` add the semantic map."""
        by_boxes = self.semantic_fusion in ("box", "both")
        by_masks = self.semantic_fusion in ("mask", "both")
        if by_boxes:
            self.box_in_features = [*self.box_in_features, self.semantic_in_feature]
        self.box_pooler = FusedROIPooler(self.box_pooler, semantic_pooler if by_boxes else None)
        if not self.mask_on:
            return
        if by_masks:
            self.mask_in_features = [*self.mask_in_features, self.semantic_in_feature]
        self.mask_pooler = FusedROIPooler(self.mask_pooler, semantic_pooler if by_masks else None)

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """See `ROIHeads.forward`. Losses are named "loss_{cls,box_reg,mask}_stage{0,1,...}"."""
        if not self.training:
            return self.detect(features, proposals), {}
        return self.train_step(features, proposals, targets)

    def _run_box_stages(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
        num_stages: int | None = None,
    ) -> Iterator[BoxStage]:
        """Yield the stages of the box cascade, the first `num_stages` or all."""
        maps = [features[f] for f in self.box_in_features]
        image_sizes = [p.image_size for p in proposals]
        boxes = []
        for stage in range(num_stages or self.num_cascade_stages):
            if stage > 0:
                if self.training and self.resample_stages:
                    proposals = self._resample(
                        boxes, proposals, targets, stage, scope=f"stage{stage}"
                    )
                else:
                    proposals = self._create_proposals_from_boxes(boxes, image_sizes)
                    if self.training:
                        proposals = self._match_and_label_boxes(proposals, stage, targets)
            predictor = self.box_predictor[stage]
            predictions = self._run_stage(maps, proposals, stage)
            class_boxes = predictor.predict_boxes(predictions, proposals)
            boxes = self._move(class_boxes, predictions[0], proposals)
            yield BoxStage(predictor, predictions, proposals, boxes, class_boxes)

    def _create_proposals_from_boxes(self, boxes, image_sizes):
        if self.training or torch.jit.is_tracing():
            return super()._create_proposals_from_boxes(boxes, image_sizes)
        # Detectron2 asserts that boxes are finite, which waits for a GPU at each stage. Those that
        # are not are no detections: the selection leaves them out.
        return [
            Instances(size, proposal_boxes=Boxes(clip_boxes_to_image(b.detach(), size)))
            for b, size in zip(boxes, image_sizes, strict=True)
        ]

    def _move(
        self,
        class_boxes: Sequence[torch.Tensor],
        logits: torch.Tensor,
        proposals: list[Instances],
    ) -> Sequence[torch.Tensor]:
        """Return where each RoI goes, (R, 4) for each image, of the boxes of its classes."""
        if class_boxes[0].shape[1] == 4:
            return class_boxes
        gt_classes = cat([p.gt_classes for p in proposals]) if self.training else None
        classes = predicted_classes(logits, gt_classes).split([b.shape[0] for b in class_boxes])
        return [boxes_of_classes(*image) for image in zip(class_boxes, classes, strict=True)]

    def _run_stage(self, features, proposals, stage):
        if self.scale_box_gradients:
            return super()._run_stage(features, proposals, stage)
        box_features = self.box_pooler(features, [p.proposal_boxes for p in proposals])
        return self.box_predictor[stage](self.box_head[stage](box_features))

    def _mask_logits(
        self,
        features: dict[str, torch.Tensor],
        boxes: list[Boxes],
        classes: torch.Tensor,
        wanted: Sequence[int],
    ) -> list[torch.Tensor]:
        """Pool the boxes and return the logits of the mask heads wanted, see `mask_logits`."""
        x = self.mask_pooler([features[f] for f in self.mask_in_features], boxes)
        return mask_logits(self.mask_head, self.mask_information_flow, x, classes, wanted)
