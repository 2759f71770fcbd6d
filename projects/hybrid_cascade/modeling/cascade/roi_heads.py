"""Hybrid Task Cascade RoI heads (arXiv 1901.07518, Section 3).

Shapes: N images, R RoIs of all images, C channels, K instance classes, T stages, M the mask side
(28). Stages are counted from 0 in code and from 1 in the paper.
"""

import logging
from collections.abc import Iterator, Sequence

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import configurable
from detectron2.layers import Conv2d, cat
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    CascadeROIHeads,
    select_foreground_proposals,
)
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers, fast_rcnn_inference
from detectron2.modeling.roi_heads.mask_head import (
    MaskRCNNConvUpsampleHead,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from detectron2.structures import Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import nn

from ...layers.soft_nms import METHODS as SOFT_NMS_METHODS
from ...layers.soft_nms import soft_nms
from ..poolers import FusedROIPooler
from .box_selection import best_boxes
from .mask_branch import class_mask_logits

logger = logging.getLogger(__name__)

# The NMS threshold and the number of boxes of Detectron2's box selection that suppress nothing. An
# IoU may be rounded to slightly more than 1.
KEEP_ALL = (2.0, -1)


@ROI_HEADS_REGISTRY.register()
class HTCROIHeads(CascadeROIHeads):
    """Detectron2's box cascade with mask stages woven into it.

    Each idea of the paper is a switch, so that its ablation (Table 3) and Cascade Mask R-CNN are
    this class with switches off:

    - interleaved execution: the mask branch of a stage trains on the boxes that the box branch of
      the same stage has refined (Eq. 2), not on the boxes that entered the stage (Eq. 1);
    - mask information flow: the mask branch of a stage also sees the features of the stage before,
      through a 1x1 convolution (Eq. 3, 4);
    - semantic fusion: RoI features of a semantic map are added to those of the pyramid (Eq. 5).

    At inference the class probabilities are averaged over the box stages, and the mask branches of
    all stages see the final boxes and their probabilities are averaged, whatever the switches.
    """

    @configurable
    def __init__(
        self,
        *,
        mask_heads: Sequence[nn.Module] = (),
        mask_stages: str = "all",
        interleaved: bool = True,
        mask_information_flow: bool = True,
        semantic_fusion: str = "none",
        semantic_pooler: ROIPooler | None = None,
        semantic_in_feature: str = "semantic",
        stage_loss_weights: Sequence[float] | None = (1.0, 0.5, 0.25),
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
            semantic_fusion: the branches that see semantic features: "none", "box", "mask", "both".
            semantic_pooler: pools the semantic map, at least as large as the other poolers' output;
                required unless `semantic_fusion` is "none".
            semantic_in_feature: the key of the semantic map among the features.
            stage_loss_weights: the paper's alpha, a factor of the box and mask losses of each
                stage. None: Detectron2's convention, weight 1 and gradients from the box branch
                into the features scaled by 1/T.
            test_stages: inference runs this many stages only, and returns what the cascade has
                found up to there; None for all. May be changed at any time.
            average_scores: class probabilities are the mean over the stages that ran, or those of
                the last.
            average_logits: average the logits of the classes instead, as MMDetection does.
            average_masks: as `average_scores`, for mask probabilities. (MMDetection 3 takes the
                last.)
            soft_nms: "linear" or "gaussian": overlapping boxes are suppressed by soft-NMS, see
                `layers.soft_nms`, whose IoU threshold is the predictors' `test_nms_thresh`. "none":
                by Detectron2's NMS. May be changed at any time.
            soft_nms_sigma: of "gaussian".
            soft_nms_score_thresh: boxes whose score decays to this or less are dropped.
            kwargs: the arguments of `CascadeROIHeads`, its `mask_head` excepted.

        Raises:
            ValueError: for switches that contradict each other or the number of stages.
        """
        super().__init__(mask_head=nn.ModuleList(mask_heads), **kwargs)
        num_stages = self.num_cascade_stages
        if semantic_fusion not in ("none", "box", "mask", "both"):
            raise ValueError(
                f"semantic_fusion={semantic_fusion!r}: not 'none', 'box', 'mask', 'both'"
            )
        if mask_stages not in ("first", "last", "all"):
            raise ValueError(f"mask_stages={mask_stages!r}: not 'first', 'last' or 'all'")
        if semantic_fusion != "none" and semantic_pooler is None:
            raise ValueError(f"semantic_fusion={semantic_fusion!r} needs a semantic_pooler")
        if stage_loss_weights is not None and len(stage_loss_weights) != num_stages:
            raise ValueError(
                f"stage_loss_weights={list(stage_loss_weights)} has {len(stage_loss_weights)} "
                f"weights for {num_stages} stages"
            )
        if test_stages is not None and test_stages not in self.test_stage_choices:
            raise ValueError(f"test_stages={test_stages} is not in [1, {num_stages}]")
        if average_logits and not average_scores:
            raise ValueError("average_logits=True contradicts average_scores=False")
        if soft_nms not in ("none", *SOFT_NMS_METHODS):
            raise ValueError(f"soft_nms={soft_nms!r}: not 'none', 'linear' or 'gaussian'")
        if soft_nms_sigma <= 0:
            raise ValueError(f"soft_nms_sigma={soft_nms_sigma} is not positive")
        if soft_nms_score_thresh < 0:
            raise ValueError(f"soft_nms_score_thresh={soft_nms_score_thresh} is negative")
        self.mask_stages = mask_stages
        self.interleaved = interleaved
        self.semantic_fusion = semantic_fusion
        self.semantic_in_feature = semantic_in_feature
        self.stage_loss_weights = stage_loss_weights
        self.test_stages = test_stages
        self.average_scores = average_scores
        self.average_logits = average_logits
        self.average_masks = average_masks
        self.soft_nms = soft_nms
        self.soft_nms_sigma = soft_nms_sigma
        self.soft_nms_score_thresh = soft_nms_score_thresh
        # Soft-NMS is left to the caller while this is False.
        self.soft_suppression_on = True

        fused_by_boxes = semantic_fusion in ("box", "both")
        if fused_by_boxes:
            self.box_in_features = [*self.box_in_features, semantic_in_feature]
        self.box_pooler = FusedROIPooler(
            self.box_pooler, semantic_pooler if fused_by_boxes else None
        )
        # The mask head of each stage that has one.
        self.mask_head_of_stage: dict[int, int] = {}
        # G_t of Eq. 4, between each two consecutive mask heads.
        self.mask_information_flow = nn.ModuleList()
        if not self.mask_on:
            return
        stages = {"first": [0], "last": [num_stages - 1], "all": list(range(num_stages))}
        if len(mask_heads) != len(stages[mask_stages]):
            raise ValueError(
                f"mask_stages={mask_stages!r} of {num_stages} stages needs "
                f"{len(stages[mask_stages])} mask heads, not {len(mask_heads)}"
            )
        self.mask_head_of_stage = {s: i for i, s in enumerate(stages[mask_stages])}
        fused_by_masks = semantic_fusion in ("mask", "both")
        if fused_by_masks:
            self.mask_in_features = [*self.mask_in_features, semantic_in_feature]
        self.mask_pooler = FusedROIPooler(
            self.mask_pooler, semantic_pooler if fused_by_masks else None
        )
        if mask_information_flow:
            if not all(getattr(head, "conv_norm_relus", None) for head in mask_heads):
                raise ValueError(
                    "mask_information_flow=True needs mask heads with convolutions "
                    "(MaskRCNNConvUpsampleHead with two or more conv_dims)"
                )
            for before, after in zip(self.mask_head, self.mask_head[1:]):  # noqa: B905
                flow = Conv2d(
                    before.conv_norm_relus[-1].out_channels,
                    after.conv_norm_relus[0].in_channels,
                    kernel_size=1,
                    activation=nn.ReLU(),
                )
                weight_init.c2_msra_fill(flow)
                self.mask_information_flow.append(flow)

    @classmethod
    def from_config(cls, cfg, input_shape):
        htc = cfg.MODEL.ROI_HTC_HEAD
        if not cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
            logger.info(
                "A cascade regresses boxes without regard to classes: "
                "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG is taken as True."
            )
            cfg = cfg.clone()
            cfg.defrost()
            cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
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
            "mask_information_flow": htc.MASK_INFORMATION_FLOW,
            "semantic_fusion": fusion,
            "semantic_in_feature": htc.SEMANTIC_IN_FEATURE,
            "stage_loss_weights": htc.STAGE_LOSS_WEIGHTS or None,
            "test_stages": htc.TEST_STAGES or None,
            "average_scores": htc.AVERAGE_SCORES,
            "average_logits": htc.AVERAGE_LOGITS,
            "average_masks": htc.AVERAGE_MASKS,
            "soft_nms": htc.SOFT_NMS,
            "soft_nms_sigma": htc.SOFT_NMS_SIGMA,
            "soft_nms_score_thresh": htc.SOFT_NMS_SCORE_THRESH,
        }

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

    @property
    def test_stage_choices(self) -> range:
        """The values of `test_stages`."""
        return range(1, self.num_cascade_stages + 1)

    def forward(self, images, features, proposals, targets=None):
        """See `ROIHeads.forward`. Losses are named "loss_{cls,box_reg,mask}_stage{0,1,...}"."""
        if not self.training:
            return super().forward(images, features, proposals)
        image_sizes = [p.image_size for p in proposals]
        proposals = self.label_and_sample_proposals(proposals, targets)
        losses = self._forward_keypoint(features, proposals)
        storage = get_event_storage()
        box_stages = self._run_box_stages(features, proposals, targets)
        for stage, (predictor, predictions, stage_proposals, boxes) in enumerate(box_stages):
            with storage.name_scope(f"stage{stage}"):
                stage_losses = predictor.losses(predictions, stage_proposals)
                if stage in self.mask_head_of_stage:
                    if self.interleaved:
                        stage_proposals = self._resample(boxes, image_sizes, targets, stage)
                    stage_losses["loss_mask"] = self._mask_loss(features, stage_proposals, stage)
            weight = 1.0 if self.stage_loss_weights is None else self.stage_loss_weights[stage]
            losses.update({f"{k}_stage{stage}": v * weight for k, v in stage_losses.items()})
        return proposals, losses

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances], stage: int = 0
    ) -> list[Instances]:
        """As in `ROIHeads`, at the IoU threshold of the given stage."""
        self.proposal_matcher = self.proposal_matchers[stage]
        return super().label_and_sample_proposals(proposals, targets)

    def _run_box_stages(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> Iterator[tuple[FastRCNNOutputLayers, tuple, list[Instances], list[torch.Tensor]]]:
        """Yield (predictor, predictions, boxes that came in, boxes that come out) of each stage."""
        maps = [features[f] for f in self.box_in_features]
        image_sizes = [p.image_size for p in proposals]
        num_stages = self.num_cascade_stages
        if not self.training and self.test_stages is not None:
            num_stages = self.test_stages
        boxes = []
        for stage in range(num_stages):
            if stage > 0:
                proposals = self._create_proposals_from_boxes(boxes, image_sizes)
                if self.training:
                    proposals = self._match_and_label_boxes(proposals, stage, targets)
            predictor = self.box_predictor[stage]
            predictions = self._run_stage(maps, proposals, stage)
            boxes = predictor.predict_boxes(predictions, proposals)
            yield predictor, predictions, proposals, boxes

    def _run_stage(self, features, proposals, stage):
        if self.stage_loss_weights is None:
            return super()._run_stage(features, proposals, stage)
        box_features = self.box_pooler(features, [p.proposal_boxes for p in proposals])
        return self.box_predictor[stage](self.box_head[stage](box_features))

    @torch.no_grad()
    def _match_and_label_boxes(self, proposals, stage, targets):
        """As in `CascadeROIHeads`, and with masks if the mask branch trains on these boxes."""
        proposals = super()._match_and_label_boxes(proposals, stage, targets)
        if stage in self.mask_head_of_stage and not self.interleaved:
            for proposals_per_image, targets_per_image in zip(proposals, targets, strict=True):
                if len(targets_per_image) > 0:
                    overlaps = pairwise_iou(
                        targets_per_image.gt_boxes, proposals_per_image.proposal_boxes
                    )
                    matched_idxs, _ = self.proposal_matchers[stage](overlaps)
                    proposals_per_image.gt_masks = targets_per_image.gt_masks[matched_idxs]
        return proposals

    def _resample(
        self,
        boxes: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
        targets: list[Instances],
        stage: int,
    ) -> list[Instances]:
        """Match the boxes that a stage has refined with the ground truth again, and sample."""
        proposals = self._create_proposals_from_boxes(boxes, image_sizes)
        for p in proposals:
            # Sampling adds the ground-truth boxes, which asks for this field; nothing reads it.
            p.objectness_logits = p.proposal_boxes.tensor.new_zeros(len(p))
        with get_event_storage().name_scope(f"stage{stage}/mask"):
            return self.label_and_sample_proposals(proposals, targets, stage)

    def _mask_loss(
        self, features: dict[str, torch.Tensor], proposals: list[Instances], stage: int
    ) -> torch.Tensor:
        instances, _ = select_foreground_proposals(proposals, self.num_classes)
        maps = [features[f] for f in self.mask_in_features]
        x = self.mask_pooler(maps, [p.proposal_boxes for p in instances])
        index = self.mask_head_of_stage[stage]
        head = self.mask_head[index]
        classes = cat([i.gt_classes for i in instances])
        (logits,) = self._mask_logits(x, classes, [index])
        return mask_rcnn_loss(logits, instances, head.vis_period) * head.loss_weight

    def _mask_logits(
        self, x: torch.Tensor, classes: torch.Tensor, heads: Sequence[int]
    ) -> list[torch.Tensor]:
        """What the given mask heads make of RoI features x, (R, C, M/2, M/2), for `classes` (R,).

        Each is (R, 1, M, M), or (R, K, M, M) of a head that is not of the usual kind.
        """
        if self.mask_information_flow:
            mask_features = list(self._mask_features(x, heads[-1] + 1))
            return [
                self._predict_masks(self.mask_head[i], mask_features[i], classes) for i in heads
            ]
        logits = []
        for head in (self.mask_head[i] for i in heads):
            if type(head) is MaskRCNNConvUpsampleHead:  # not one with layers of its own
                y = x
                for conv in head.conv_norm_relus:
                    y = conv(y)
                logits.append(self._predict_masks(head, y, classes))
            else:
                logits.append(head.layers(x))
        return logits

    def _mask_features(self, x: torch.Tensor, num_heads: int) -> Iterator[torch.Tensor]:
        """Yield what the last 3x3 convolution of each head computes, m_t^- of Eq. 3 and 4.

        All heads see the same RoI features x, and gradients flow through them.
        """
        for index, head in enumerate(self.mask_head[:num_heads]):
            y = x if index == 0 else x + self.mask_information_flow[index - 1](y)  # noqa: F821
            for conv in head.conv_norm_relus:
                y = conv(y)
            yield y

    @staticmethod
    def _predict_masks(head: nn.Module, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """From m_t^- to logits: the layers after the last 3x3 convolution."""
        return class_mask_logits(head.predictor, head.deconv_relu(head.deconv(x)), classes)

    def _forward_box(self, features, proposals, targets=None):
        """Detect at inference, as `CascadeROIHeads`, with this class's switches."""
        boxes, scores = self.predict_boxes_and_scores(features, proposals)
        return self.select_boxes(boxes, scores, [p.image_size for p in proposals])

    def predict_boxes_and_scores(
        self, features: dict[str, torch.Tensor], proposals: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """What the cascade makes of each proposal at inference, before any is suppressed.

        Returns:
            The boxes of the last stage, (R, 4) for each image, and the probabilities of the classes
            and the background, (R, K + 1) for each image.
        """
        stages = list(self._run_box_stages(features, proposals))
        predictor, _, proposals, boxes = stages[-1]
        if self.average_logits:
            logits = sum(predictions[0] for _, predictions, _, _ in stages) / len(stages)
            return boxes, predictor.predict_probs((logits, None), proposals)
        scores_per_stage = [p.predict_probs(x, proposals) for p, x, _, _ in stages]
        if not self.average_scores:
            return boxes, scores_per_stage[-1]
        return boxes, [sum(s) / len(stages) for s in zip(*scores_per_stage, strict=True)]

    @property
    def final_predictor(self) -> FastRCNNOutputLayers:
        """The predictor of the last stage that inference runs, whose test thresholds count."""
        return self.box_predictor[(self.test_stages or self.num_cascade_stages) - 1]

    def select_boxes(
        self,
        boxes: list[torch.Tensor],
        scores: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """As Detectron2's `fast_rcnn_inference` with the test thresholds, or with soft-NMS."""
        predictor = self.final_predictor
        threshold, topk = predictor.test_score_thresh, predictor.test_topk_per_image
        if self.soft_nms == "none":
            return [
                best_boxes(*image, threshold, predictor.test_nms_thresh, topk)
                for image in zip(boxes, scores, image_sizes, strict=True)
            ]
        instances, _ = fast_rcnn_inference(boxes, scores, image_sizes, threshold, *KEEP_ALL)
        if self.soft_suppression_on:
            instances = [self.suppress_softly(i) for i in instances]
        return instances

    def suppress_softly(self, instances: Instances) -> Instances:
        """The best of the candidates of an image after soft-NMS, with their decayed scores."""
        kept, scores = soft_nms(
            instances.pred_boxes.tensor,
            instances.scores,
            instances.pred_classes,
            self.soft_nms,
            iou_thresh=self.final_predictor.test_nms_thresh,
            sigma=self.soft_nms_sigma,
            score_thresh=self.soft_nms_score_thresh,
        )
        topk = self.final_predictor.test_topk_per_image
        if topk >= 0:
            kept, scores = kept[:topk], scores[:topk]
        instances = instances[kept]
        instances.scores = scores
        return instances

    def _forward_mask(self, features, instances):
        """Add "pred_masks", (R, 1, M, M) probabilities, to the detected instances at inference."""
        if not self.mask_on:
            return instances
        maps = [features[f] for f in self.mask_in_features]
        x = self.mask_pooler(maps, [i.pred_boxes for i in instances])
        heads = range(len(self.mask_head[: self.test_stages]))
        classes = cat([i.pred_classes for i in instances])
        masks_per_head = []
        for logits in self._mask_logits(x, classes, heads if self.average_masks else heads[-1:]):
            mask_rcnn_inference(logits, instances)
            masks_per_head.append([i.pred_masks for i in instances])
        for i, masks in zip(instances, zip(*masks_per_head, strict=True), strict=True):
            i.pred_masks = torch.stack(masks).mean(dim=0)
        return instances
