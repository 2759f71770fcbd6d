"""Multi-task Network Cascades (arXiv 1512.04412).

Shapes: B images, R RoIs of all images, C channels, N instance classes, m the side of a predicted
mask, G ground-truth instances of an image. Stages are numbered as in the paper: stage 1 is the RPN,
2 predicts masks, 3 categories; 4 and 5 repeat 2 and 3 on refined boxes with the same weights. Only
the names of losses count from 0, as Detectron2's cascade does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.config import configurable, get_cfg
from detectron2.layers import ShapeSpec, cat, shapes_to_tensor
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    ROIHeads,
    build_box_head,
    select_foreground_proposals,
)
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import BitMasks, Boxes, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn import functional as F

from ..poolers import ROIWarpPooler
from .gradient_clamp import limit_gradient, watch_loss_scale
from .heads import MNCMaskHead
from .image_masks import ImageMasks
from .mask_voting import mask_voting
from .output_layers import MNCOutputLayers

TEST_OUTPUTS = ("voting", "nms", "boxes")


@dataclass
class Candidates:
    """What a mask stage and the categorising stage after it say about the RoIs of an image."""

    stage: int  # the categorising stage: 3, 5, ...
    boxes: Tensor  # (R, 4), the RoIs, in which the masks lie
    masks: Tensor  # (R, m, m) probabilities
    scores: Tensor  # (R, N + 1) probabilities, background last
    class_boxes: Tensor  # (R, 4 N), what the box layers make of each RoI for each class


@ROI_HEADS_REGISTRY.register()
class MNCROIHeads(ROIHeads):
    """Masks without classes, then classes of boxes with their masks, and that again.

    Gradients of every stage flow through the coordinates of the boxes into the stages before, down
    to the RPN (use `RPNWithBoxGradients`). The rows of the paper's ablation (Table 1):

    - separate features: `SeparateBackbones`, `mask_in_features` other than `in_features`, and
      `end_to_end=False`;
    - shared features: `end_to_end=False`, 3 stages;
    - end to end: 3 stages;
    - five stages: `num_stages=5`.
    """

    @configurable
    def __init__(
        self,
        *,
        in_features: Sequence[str],
        pooler: nn.Module,
        mask_head: MNCMaskHead,
        masked_head: nn.Module,
        box_head: nn.Module,
        predictor: MNCOutputLayers,
        mask_in_features: Sequence[str] | None = None,
        num_stages: int = 5,
        test_stages: int | None = None,
        end_to_end: bool = True,
        max_box_gradient: float | None = 1 / 512,
        pathway_pool: int = 2,
        global_context: bool = False,
        mask_loss_weight: float = 2.0,
        sampling_ious: Sequence[float] = (0.5, 0.1),
        sampling_fractions: Sequence[float] = (0.3, 0.5, 0.2),
        mask_threshold: float = 0.4,
        test_output: str = "voting",
        nms_iou: float = 0.3,
        merge_iou: float = 0.5,
        **kwargs,
    ):
        """
        Args:
            in_features: the features that RoIs are pooled from.
            pooler: pools the features of boxes, differentiable by the boxes: `ROIWarpPooler`. The
                paper's has 28 x 28 samples and `max_pool=2`.
            mask_head: stage 2; takes what the pooler returns.
            masked_head: the mask pathway of stage 3: RoI features times the mask, to (R, D).
            box_head: its box pathway: RoI features to (R, D'). Its weights are its own.
            predictor: takes D + D' channels, with global context D + 2 D'.
            mask_in_features: the features that stage 2 sees, if not `in_features`.
            num_stages: 3, 5, 7, ...
            test_stages: inference runs this many stages only; None for all. May be changed.
            end_to_end: losses reach the stages before through the boxes. Needs proposals with
                gradients.
            max_box_gradient: bound, for a batch of one image, of the gradient of each box delta
                between stages 3 and 4 (`limit_gradient`); None for no bound.
            pathway_pool: both pathways start with max pooling of this size; 1 for none.
            global_context: predictions also see the box pathway's features of the whole image, as
                in the COCO 2015 entry (arXiv 1512.03385, appendix B).
            mask_loss_weight: 2 as released, 1 in the paper.
            sampling_ious, sampling_fractions: RoIs for training are drawn, in these fractions, with
                an IoU with the ground truth of at least the first threshold, between the two, and
                below. Where positives lack, the others take their place, and the other way round
                never.
            mask_threshold: a mask is where its probability is at least this.
            test_output: "voting" merges the candidates of all stages by mask voting, "nms" keeps
                the best of them by box NMS with their masks, and "boxes" returns the boxes of the
                box layers, without masks, for the box AP of the box layers.
            nms_iou, merge_iou: of mask voting; NMS of the other outputs is the predictor's.
            kwargs: the arguments of `ROIHeads`, its `positive_fraction` excepted.

        Raises:
            ValueError: for switches that contradict each other.
        """
        super().__init__(positive_fraction=sampling_fractions[0], **kwargs)
        if num_stages < 3 or num_stages % 2 == 0:
            raise ValueError(f"num_stages={num_stages} is not 3, 5, 7, ...")
        self.num_stages = num_stages
        if test_stages is not None and test_stages not in self.test_stage_choices:
            raise ValueError(f"test_stages={test_stages} is none of {[*self.test_stage_choices]}")
        if test_output not in TEST_OUTPUTS:
            raise ValueError(f"test_output={test_output!r} is not one of {TEST_OUTPUTS}")
        if len(sampling_fractions) != len(sampling_ious) + 1 or sum(sampling_fractions) > 1 + 1e-6:
            raise ValueError(
                f"sampling_fractions={list(sampling_fractions)} must be one more than "
                f"sampling_ious={list(sampling_ious)}, and not more than 1 in all"
            )
        self.in_features = list(in_features)
        self.mask_in_features = list(mask_in_features or in_features)
        self.pooler = pooler
        self.mask_head = mask_head
        self.masked_head = masked_head
        self.box_head = box_head
        self.predictor = predictor
        self.test_stages = test_stages
        self.end_to_end = end_to_end
        self.max_box_gradient = max_box_gradient
        self.pathway_pool = pathway_pool
        self.global_context = global_context
        self.mask_loss_weight = mask_loss_weight
        self.sampling_ious = list(sampling_ious)
        self.sampling_fractions = list(sampling_fractions)
        self.mask_threshold = mask_threshold
        self.test_output = test_output
        self.nms_iou = nms_iou
        self.merge_iou = merge_iou

    @classmethod
    def from_config(cls, cfg, input_shape):
        mnc = cfg.MODEL.ROI_MNC_HEAD
        in_features = cfg.MODEL.ROI_HEADS.IN_FEATURES
        channels = input_shape[in_features[0]].channels
        side = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
        shape = ShapeSpec(channels=channels, height=side, width=side)
        pooled = side // mnc.PATHWAY_POOL
        pathway_shape = ShapeSpec(channels=channels, height=pooled, width=pooled)
        masked_head, box_head = (build_box_head(cfg, pathway_shape) for _ in range(2))
        features = masked_head.output_shape.channels + box_head.output_shape.channels
        if mnc.GLOBAL_CONTEXT:
            features += box_head.output_shape.channels
        fractions = mnc.SAMPLING_FRACTIONS
        args = super().from_config(cfg)
        positive_fraction = args.pop("positive_fraction")
        if positive_fraction not in (get_cfg().MODEL.ROI_HEADS.POSITIVE_FRACTION, fractions[0]):
            raise ValueError(
                f"MODEL.ROI_HEADS.POSITIVE_FRACTION {positive_fraction} has no effect on "
                "MNCROIHeads: set MODEL.ROI_MNC_HEAD.SAMPLING_FRACTIONS, whose first number it is, "
                f"now {tuple(fractions)}"
            )
        return {
            **args,
            "in_features": in_features,
            "pooler": ROIWarpPooler(
                output_size=side * mnc.WARP_MAX_POOL,
                scales=[1 / input_shape[f].stride for f in in_features],
                max_pool=mnc.WARP_MAX_POOL,
            ),
            "mask_head": MNCMaskHead(shape, mnc.MASK_FC_DIM, mnc.MASK_SIDE),
            "masked_head": masked_head,
            "box_head": box_head,
            "predictor": MNCOutputLayers(cfg, ShapeSpec(channels=features)),
            "num_stages": mnc.NUM_STAGES,
            "test_stages": mnc.TEST_STAGES or None,
            "end_to_end": mnc.END_TO_END,
            "max_box_gradient": mnc.MAX_BOX_GRADIENT or None,
            "pathway_pool": mnc.PATHWAY_POOL,
            "global_context": mnc.GLOBAL_CONTEXT,
            "mask_loss_weight": mnc.MASK_LOSS_WEIGHT,
            "sampling_ious": mnc.SAMPLING_IOUS,
            "sampling_fractions": fractions,
            "mask_threshold": mnc.MASK_THRESHOLD,
            "test_output": mnc.TEST_OUTPUT,
            "nms_iou": mnc.NMS_IOU,
            "merge_iou": mnc.MERGE_IOU,
        }

    @property
    def test_stage_choices(self) -> range:
        """The values of `test_stages`."""
        return range(3, self.num_stages + 1, 2)

    def forward(self, images, features, proposals, targets=None):
        """See `ROIHeads.forward`. Losses are named "loss_mask_stage{1,3,...}" and
        "loss_{cls,box_cls,box_reg}_stage{2,4,...}": there, as elsewhere, stages count from 0."""
        if self.training:
            return self._train(features, proposals, targets)
        candidates = self.find_candidates(features, proposals)
        sizes = [p.image_size for p in proposals]
        return [self.merge(c, size) for c, size in zip(candidates, sizes, strict=True)], {}

    def find_candidates(
        self, features: dict[str, Tensor], proposals: list[Instances]
    ) -> list[list[Candidates]]:
        """The candidates of each image, an item for each pair of stages that ran.

        Args:
            features: from the backbone.
            proposals: B Instances with "proposal_boxes".
        """
        boxes = [p.proposal_boxes for p in proposals]
        image_sizes = [p.image_size for p in proposals]
        rounds = []
        for stage in range(2, self.test_stages or self.num_stages, 2):
            if stage > 2:
                boxes = self._refine(boxes, predictions, image_sizes)  # noqa: F821
            mask_logits, predictions = self._run_stages(features, boxes, image_sizes)
            counts = [len(b) for b in boxes]
            scores, _, deltas = predictions
            instances = self._as_proposals(boxes, image_sizes)
            rounds.append(
                map(
                    Candidates,
                    [stage + 1] * len(boxes),
                    [b.tensor for b in boxes],
                    mask_logits.sigmoid().split(counts),
                    self.predictor.predict_probs((scores, deltas), instances),
                    self.predictor.predict_boxes((scores, deltas), instances),
                )
            )
        return [list(image) for image in zip(*rounds, strict=True)]

    def merge(self, candidates: list[Candidates], image_size: tuple[int, int]) -> Instances:
        """Detections of an image from the candidates of its stages, as `test_output` says.

        Several models, or several views whose boxes are in the same frame, vote by their joined
        candidates (`VotingEnsemble`).

        Returns:
            Instances with "pred_boxes", "scores", "pred_classes", and unless `test_output` is
            "boxes", "pred_masks": ImageMasks after voting, else (R, 1, m, m) probabilities.
        """
        predictor = self.predictor
        if self.test_output == "boxes":
            # The last stage says all that box layers know.
            last = max(c.stage for c in candidates)
            candidates = [c for c in candidates if c.stage == last]
        scores = torch.cat([c.scores for c in candidates])
        boxes = torch.cat([c.boxes for c in candidates])
        masks = torch.cat([c.masks for c in candidates])
        if self.test_output == "voting":
            instances = mask_voting(
                boxes,
                masks,
                scores[:, :-1],
                image_size,
                nms_iou=self.nms_iou,
                merge_iou=self.merge_iou,
                mask_threshold=self.mask_threshold,
                topk=predictor.test_topk_per_image,
                score_threshold=predictor.test_score_thresh,
            )
            instances.pred_masks = ImageMasks(instances.pred_masks)
            return instances
        if self.test_output == "boxes":
            boxes = torch.cat([c.class_boxes for c in candidates])
        [instances], [index] = fast_rcnn_inference(
            [boxes],
            [scores],
            [image_size],
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        if self.test_output == "nms":
            instances.pred_masks = masks[index][:, None]
        return instances

    def _train(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances]
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        have_gradients = all(p.proposal_boxes.tensor.requires_grad for p in proposals)
        # Without gradients at all, the losses are to be looked at, say of a validation set.
        if self.end_to_end and torch.is_grad_enabled() and not have_gradients:
            raise ValueError(
                "end_to_end=True trains through the boxes, but the proposals have no gradients. Use"
                " RPNWithBoxGradients with box_gradients=True as the proposal generator, or set"
                " end_to_end=False."
            )
        image_sizes = [p.image_size for p in proposals]
        areas = [mask_areas(t) if len(t) else None for t in targets]
        drawn = [self._sample(p.proposal_boxes, t) for p, t in zip(proposals, targets, strict=True)]
        boxes = [b for b, _ in drawn]
        num_positives = sum(positives for _, positives in drawn)
        storage, num_images = get_event_storage(), max(len(drawn), 1)
        storage.put_scalar("roi_head/num_fg_samples", num_positives / num_images)
        num_negatives = sum(len(b) for b in boxes) - num_positives
        storage.put_scalar("roi_head/num_bg_samples", num_negatives / num_images)
        for p in proposals:  # `GeneralizedRCNN` draws them (vis_period)
            p.proposal_boxes = Boxes(p.proposal_boxes.tensor.detach())
        losses = {}
        for stage in range(2, self.num_stages, 2):
            if stage > 2:
                boxes = self._refine(boxes, predictions, image_sizes)  # noqa: F821
                boxes = [append_ground_truth(b, t) for b, t in zip(boxes, targets, strict=True)]
            if not self.end_to_end:
                boxes = [Boxes(b.tensor.detach()) for b in boxes]
            instances = [self._match(*x) for x in zip(boxes, targets, areas, strict=True)]
            mask_logits, predictions = self._run_stages(features, boxes, image_sizes)
            with storage.name_scope(f"stage{stage}"):
                loss_mask, mask_classes = self._mask_loss(mask_logits, instances)
                category_losses = self.predictor.losses(predictions, instances, mask_classes)
            losses[f"loss_mask_stage{stage - 1}"] = loss_mask * self.mask_loss_weight
            losses.update({f"{k}_stage{stage}": v for k, v in category_losses.items()})
        for loss in losses.values():
            watch_loss_scale(loss)
        return instances, losses

    def _run_stages(
        self, features: dict[str, Tensor], boxes: list[Boxes], image_sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """A mask stage and a categorising stage: mask logits (R, m, m) and predictions."""
        maps = [features[f] for f in self.in_features]
        x = self.pooler(maps, boxes)
        y = x
        if self.mask_in_features != self.in_features:
            y = self.pooler([features[f] for f in self.mask_in_features], boxes)
        mask_logits = self.mask_head(y)
        masks = F.interpolate(
            mask_logits.sigmoid()[:, None], x.shape[-2:], mode="bilinear", align_corners=False
        )
        pathways = [
            self.masked_head(F.max_pool2d(x * masks, self.pathway_pool)),  # the masking layer
            self.box_head(F.max_pool2d(x, self.pathway_pool)),
        ]
        if self.global_context:
            # Clipped, not made of the sizes: those are tensors in a trace, and may change.
            most = torch.finfo(boxes[0].tensor.dtype).max
            whole = [Boxes(b.tensor.new_tensor([[0, 0, most, most]])) for b in boxes]
            for b, image_size in zip(whole, image_sizes, strict=True):
                b.clip(image_size)
            whole = self.pooler(maps, whole)
            context = self.box_head(F.max_pool2d(whole, self.pathway_pool))
            counts = shapes_to_tensor([len(b) for b in boxes], device=x.device)
            pathways.append(context.repeat_interleave(counts, dim=0))
        return mask_logits, self.predictor(torch.cat([p.flatten(1) for p in pathways], dim=1))

    def _refine(
        self,
        boxes: list[Boxes],
        predictions: tuple[Tensor, Tensor, Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Boxes]:
        """The bridge between two rounds: each RoI moves by the deltas of the foreground class that
        scores highest, and is clipped to the image."""
        scores, _, deltas = predictions
        best = scores[:, :-1].argmax(dim=1)
        deltas = deltas.unflatten(1, (-1, 4))
        best = best.clamp(max=deltas.shape[1] - 1)  # regression may not regard classes
        deltas = deltas[torch.arange(len(best), device=best.device), best]
        deltas = limit_gradient(deltas, self.max_box_gradient, len(boxes))
        transform = self.predictor.box2box_transform
        refined = transform.apply_deltas(deltas, cat([b.tensor for b in boxes]))
        refined = [Boxes(b) for b in refined.split([len(b) for b in boxes])]
        for b, image_size in zip(refined, image_sizes, strict=True):
            b.clip(image_size)
        return refined

    def _sample(self, boxes: Boxes, targets: Instances) -> tuple[Boxes, int]:
        """Draw the RoIs of an image to train on, ground-truth boxes among them; and how many of
        them are positive."""
        if self.proposal_append_gt:
            boxes = append_ground_truth(boxes, targets)
        with torch.no_grad():
            if len(targets):
                ious = pairwise_iou(targets.gt_boxes, boxes).amax(dim=0)
            else:
                ious = boxes.tensor.new_zeros(len(boxes))
            # 0: IoU at least the first threshold, 1: at least the second, ...
            kinds = sum((ious < threshold).long() for threshold in self.sampling_ious)
            pools = []
            for kind in range(len(self.sampling_fractions)):
                pool = (kinds == kind).nonzero()[:, 0]
                pools.append(pool[torch.randperm(len(pool), device=pool.device)])
            quotas = [round(self.batch_size_per_image * f) for f in self.sampling_fractions]
            drawn = [pool[:quota] for pool, quota in zip(pools, quotas, strict=True)]
            others = [pool[quota:] for pool, quota in zip(pools[1:], quotas[1:], strict=True)]
            lacking = self.batch_size_per_image - sum(len(d) for d in drawn)
            index = torch.cat([*drawn, torch.cat(others)[: max(lacking, 0)]])
        return boxes[index], len(drawn[0])

    @torch.no_grad()
    def _match(self, boxes: Boxes, targets: Instances, areas: Tensor | None) -> Instances:
        """Boxes with the ground truth that they overlap most; N is the class of the others."""
        matched, labels = self.proposal_matcher(pairwise_iou(targets.gt_boxes, boxes))
        instances = Instances(targets.image_size)
        instances.proposal_boxes = Boxes(boxes.tensor.detach())
        if len(targets) == 0:
            instances.gt_classes = torch.full_like(matched, self.num_classes)
            return instances
        instances.gt_classes = targets.gt_classes[matched].masked_fill(
            labels == 0, self.num_classes
        )
        instances.gt_boxes = targets.gt_boxes[matched]
        instances.gt_masks = targets.gt_masks[matched]
        instances.gt_areas = areas[matched]
        return instances

    def _mask_loss(self, logits: Tensor, instances: list[Instances]) -> tuple[Tensor, Tensor]:
        """The loss of the mask stage on positive RoIs, and the mask-level classes (R,): those of
        RoIs whose mask, too, has an IoU of at least the matcher's threshold with their ground
        truth."""
        classes = cat([i.gt_classes for i in instances])
        positives, selections = select_foreground_proposals(instances, self.num_classes)
        selection = cat(selections)
        positives = [p for p in positives if len(p)]
        mask_classes = torch.full_like(classes, self.num_classes)
        if not positives:
            return logits.sum() * 0, mask_classes
        logits = logits[selection]
        with torch.no_grad():
            side = logits.shape[-1]
            masks = cat(
                [p.gt_masks.crop_and_resize(p.proposal_boxes.tensor, side) for p in positives]
            ).to(logits.device)
            boxes = cat([p.proposal_boxes.area() for p in positives])
            whole = cat([p.gt_areas for p in positives])
            found = logits.sigmoid() >= self.mask_threshold
            # In pixels of the image; a ground truth counts outside of the box as well.
            intersection = (found & masks).sum(dim=(1, 2)) * boxes / side**2
            union = found.sum(dim=(1, 2)) * boxes / side**2 + whole - intersection
            [threshold] = self.proposal_matcher.thresholds[1:-1]
            union = union.clamp(min=1e-6)  # two masks without a pixel are not alike
            good = intersection >= threshold * union
            mask_classes[selection] = classes[selection].where(
                good, torch.full_like(classes[selection], self.num_classes)
            )
            get_event_storage().put_scalar("mask_iou", (intersection / union).mean())
        return F.binary_cross_entropy_with_logits(logits, masks.to(logits.dtype)), mask_classes

    @staticmethod
    def _as_proposals(boxes: list[Boxes], image_sizes: list[tuple[int, int]]) -> list[Instances]:
        return [
            Instances(size, proposal_boxes=b) for b, size in zip(boxes, image_sizes, strict=True)
        ]


def append_ground_truth(boxes: Boxes, targets: Instances) -> Boxes:
    """Detectron2's `add_ground_truth_to_proposals` for boxes that keep their graph."""
    return Boxes(torch.cat([boxes.tensor, targets.gt_boxes.tensor.to(boxes.tensor)]))


def mask_areas(targets: Instances) -> Tensor:
    """Areas (G,) of the masks of an image's ground truth, in pixels.

    Raises:
        ValueError: if it has no masks.
    """
    if not targets.has("gt_masks"):
        raise ValueError(
            "MNC trains on instance masks, and these have none (no gt_masks). Use data with a"
            " segmentation in each annotation, and let the mapper read it: MODEL.MASK_ON True, or"
            " dataloader.train.mapper.use_instance_mask=True"
        )
    masks = targets.gt_masks
    if isinstance(masks, BitMasks):
        return masks.tensor.sum(dim=(1, 2)).float()
    return masks.area().float().to(targets.gt_boxes.device)  # polygons are on the CPU
