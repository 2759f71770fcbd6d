"""The ROI heads of Multi-task Network Cascades (arXiv 1512.04412).

N images, R RoIs of all images, C channels, K classes, M the side of a mask in cells, H x W the size
of an image. Stages count from 1 in the text, as in the paper: stage 1 is the RPN, 2 predicts masks,
3 categories; 4 and 5 repeat 2 and 3 on refined boxes with the same weights. In code, and so in the
names of losses, they count from 0.
"""

from collections.abc import Sequence

import torch
from detectron2.config import configurable, get_cfg
from detectron2.layers import ShapeSpec, cat, shapes_to_tensor
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, ROIHeads, build_box_head
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn import functional as F

from ..poolers import ROIWarpPooler
from .gradient_clamp import BoxGradientClamp, clamps_of, tell_loss_scale
from .heads import MNCMaskHead, MNCOutputLayers, joined_pathways
from .inference import TEST_OUTPUTS, MNCInference, is_number_of_stages
from .mask_loss import mask_areas, mask_loss
from .rpn import check_box_gradients
from .sampling import append_ground_truth, detach_background, draw_rois_of_images, match_rois

BOX_GRADIENT_ROIS = ("positive", "all")


@ROI_HEADS_REGISTRY.register()
class MNCROIHeads(MNCInference, ROIHeads):
    """Predicts masks without classes, then classes of boxes with their masks, then both again.

    Gradients of every stage flow through the coordinates of the boxes into the stages before, down
    to the RPN (use `RPNWithBoxGradients`). docs/mnc.md lists the switches that make the rows of the
    paper's ablation (Table 1).
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
        box_gradient_rois: str = "positive",
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
        binarize_before_voting: bool = False,
        **kwargs,
    ):
        """
        Args:
            in_features: the features that RoIs are pooled from.
            pooler: pools the features of boxes, differentiable by the boxes: `ROIWarpPooler`. The
                paper's has 28 x 28 samples and `max_pool=2`.
            mask_head: stage 2; takes what the pooler returns.
            masked_head: the mask pathway of stage 3, from RoI features times the mask to (R, C).
            box_head: its box pathway, from RoI features to (R, C), with weights of its own.
            predictor: takes the channels of both pathways, with global context those of `box_head`
                twice.
            mask_in_features: the features that stage 2 sees; None for `in_features`.
            num_stages: 3, 5, 7, ...: how many stages are trained.
            test_stages: 3, 5, 7, ...: how many stages inference runs, unless a call says otherwise;
                None for `num_stages`. As stages share their weights, it may be more than that.
            end_to_end: losses reach the stages before through the boxes. Needs proposals with
                gradients.
            box_gradient_rois: the RoIs whose boxes have gradients in `end_to_end` training:
                "positive", or "all", as released. To be surer of background, a classifier pushes
                the boxes of background RoIs away from objects.
            max_box_gradient: bound, for a batch of one image, of the gradient of each box delta
                between stages 3 and 4 (`BoxGradientClamp`); None for no bound.
            pathway_pool: both pathways start with max pooling of this size; 1 for none.
            global_context: predictions also see the box pathway's features of the whole image, as
                in the COCO 2015 entry (arXiv 1512.03385, appendix B).
            mask_loss_weight: 2 as released, 1 in the paper.
            sampling_ious, sampling_fractions: which RoIs are drawn for training; see `draw_rois`.
                By default 30 % have an IoU with the ground truth of at least 0.5, 50 % of at least
                0.1, and 20 % of less.
            mask_threshold: a pixel belongs to a mask if its probability is at least this.
            test_output: "voting" merges the candidates of all stages by mask voting, "nms" keeps
                the best of them by box NMS with their masks, and "boxes" returns the boxes of the
                box layers with the scores of the box-level classifier, without masks, for the box
                AP of the box layers.
            nms_iou: of the NMS of all three, in place of the predictor's `test_nms_thresh`.
            merge_iou, binarize_before_voting: of mask voting.
            kwargs: the arguments of `ROIHeads`, its `positive_fraction` excepted.

        Raises:
            ValueError: if switches contradict each other.
        """
        super().__init__(positive_fraction=sampling_fractions[0], **kwargs)
        self.in_features = list(in_features)
        self.mask_in_features = list(mask_in_features or in_features)
        self.pooler = pooler
        self.mask_head = mask_head
        self.masked_head = masked_head
        self.box_head = box_head
        self.predictor = predictor
        self.num_stages = num_stages
        self.test_stages = test_stages
        self.end_to_end = end_to_end
        self.box_gradient_rois = box_gradient_rois
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
        self.binarize_before_voting = binarize_before_voting
        self._check_switches()

    def _check_switches(self) -> None:
        fractions, ious = self.sampling_fractions, self.sampling_ious
        has_test_stages = self.test_stages is None or is_number_of_stages(self.test_stages)
        for name, is_valid, rule in (
            ("num_stages", is_number_of_stages(self.num_stages), "be 3, 5, 7, ..."),
            ("test_stages", has_test_stages, "be None, 3, 5, 7, ..."),
            ("test_output", self.test_output in TEST_OUTPUTS, f"be one of {TEST_OUTPUTS}"),
            (
                "box_gradient_rois",
                self.box_gradient_rois in BOX_GRADIENT_ROIS,
                f"be one of {BOX_GRADIENT_ROIS}",
            ),
            (
                "sampling_fractions",
                len(fractions) == len(ious) + 1 and sum(fractions) <= 1 + 1e-6,
                f"be one more than sampling_ious={ious}, and at most 1 in all",
            ),
        ):
            if not is_valid:
                raise ValueError(f"{name}={getattr(self, name)!r} must {rule}")
        nms_thresh = self.predictor.test_nms_thresh
        if nms_thresh not in (get_cfg().MODEL.ROI_HEADS.NMS_THRESH_TEST, self.nms_iou):
            raise ValueError(
                f"test_nms_thresh={nms_thresh} of the predictor (MODEL.ROI_HEADS.NMS_THRESH_TEST)"
                " has no effect on MNCROIHeads: set nms_iou (MODEL.ROI_MNC_HEAD.NMS_IOU), now"
                f" {self.nms_iou}"
            )

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
        joined = joined_pathways(box_head.output_shape.channels, mnc.GLOBAL_CONTEXT)
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
            "predictor": MNCOutputLayers(cfg, joined),
            "num_stages": mnc.NUM_STAGES,
            "test_stages": mnc.TEST_STAGES or None,
            "end_to_end": mnc.END_TO_END,
            "box_gradient_rois": mnc.BOX_GRADIENT_ROIS,
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
            "binarize_before_voting": mnc.BINARIZE_BEFORE_VOTING,
        }

    def forward(self, images, features, proposals, targets=None):
        """Return detections and losses, one of them empty; see `ROIHeads.forward`.

        Losses are named "loss_mask_stage{1,3,...}" and "loss_{cls,box_cls,box_reg}_stage{2,4,...}".
        """
        if self.training:
            return self._train(features, proposals, targets)
        return self.detect(features, proposals), {}

    def _train(
        self, features: dict[str, Tensor], proposals: list[Instances], targets: list[Instances]
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        # Under no_grad, somebody wants the losses only, for example of a validation dataset.
        if self.end_to_end and torch.is_grad_enabled():
            check_box_gradients(proposals)
        image_sizes = [p.image_size for p in proposals]
        areas = [mask_areas(t) if len(t) else None for t in targets]
        boxes = [p.proposal_boxes for p in proposals]
        if self.proposal_append_gt:
            boxes = [append_ground_truth(b, t) for b, t in zip(boxes, targets, strict=True)]
        boxes = draw_rois_of_images(
            boxes, targets, self.batch_size_per_image, self.sampling_ious, self.sampling_fractions
        )
        clamp = BoxGradientClamp(self.max_box_gradient, len(proposals))
        clamps = [clamp, *clamps_of(proposals)]
        for p in proposals:  # `GeneralizedRCNN` draws them (vis_period)
            p.proposal_boxes = Boxes(p.proposal_boxes.tensor.detach())
        [iou_thresh] = self.proposal_matcher.thresholds[1:-1]
        losses = {}
        for stage in range(2, self.num_stages, 2):
            if stage > 2:
                boxes = self._refine(boxes, predictions, image_sizes, clamp)  # noqa: F821
                boxes = [append_ground_truth(b, t) for b, t in zip(boxes, targets, strict=True)]
            if not self.end_to_end:
                boxes = [Boxes(b.tensor.detach()) for b in boxes]
            instances = [
                match_rois(b, t, a, self.proposal_matcher, self.num_classes)
                for b, t, a in zip(boxes, targets, areas, strict=True)
            ]
            if self.box_gradient_rois == "positive":
                boxes = [
                    detach_background(b, i.gt_classes == self.num_classes)
                    for b, i in zip(boxes, instances, strict=True)
                ]
            mask_logits, predictions = self._run_stages(features, boxes, image_sizes)
            with get_event_storage().name_scope(f"stage{stage}"):
                loss_mask, mask_classes = mask_loss(
                    mask_logits,
                    instances,
                    mask_threshold=self.mask_threshold,
                    iou_thresh=iou_thresh,
                    num_classes=self.num_classes,
                )
                category_losses = self.predictor.losses(predictions, instances, mask_classes)
            losses[f"loss_mask_stage{stage - 1}"] = loss_mask * self.mask_loss_weight
            losses.update({f"{k}_stage{stage}": v for k, v in category_losses.items()})
        return instances, tell_loss_scale(losses, clamps)

    def _run_stages(
        self, features: dict[str, Tensor], boxes: list[Boxes], image_sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Return the mask logits (R, M, M) of a mask stage, and the predictions of the categorising
        stage after it."""
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
            pathways.append(self._context_of(maps, boxes, image_sizes))
        return mask_logits, self.predictor(torch.cat([p.flatten(1) for p in pathways], dim=1))

    def _context_of(
        self, maps: list[Tensor], boxes: list[Boxes], image_sizes: list[tuple[int, int]]
    ) -> Tensor:
        """Return the box pathway's features of the whole image, for each RoI."""
        # Clipped to the sizes, not made of them: in a trace, sizes are tensors and stay variable.
        most = torch.finfo(boxes[0].tensor.dtype).max
        whole = [Boxes(b.tensor.new_tensor([[0, 0, most, most]])) for b in boxes]
        for b, image_size in zip(whole, image_sizes, strict=True):
            b.clip(image_size)
        context = self.box_head(F.max_pool2d(self.pooler(maps, whole), self.pathway_pool))
        counts = shapes_to_tensor(_numbers_of(boxes), device=context.device)
        return context.repeat_interleave(counts, dim=0)

    def _refine(
        self,
        boxes: list[Boxes],
        predictions: tuple[Tensor, Tensor, Tensor],
        image_sizes: list[tuple[int, int]],
        clamp: BoxGradientClamp,
    ) -> list[Boxes]:
        """Return the boxes of the next stage: each RoI moved by the deltas of the foreground class
        that scores highest, and clipped to the image."""
        scores, _, deltas = predictions
        best = scores[:, :-1].argmax(dim=1)
        deltas = deltas.unflatten(1, (-1, 4))
        best = best.clamp(max=deltas.shape[1] - 1)  # regression may be the same for all classes
        deltas = clamp(deltas[torch.arange(best.shape[0], device=best.device), best])
        transform = self.predictor.box2box_transform
        refined = transform.apply_deltas(deltas, cat([b.tensor for b in boxes]))
        refined = [Boxes(b) for b in refined.split(_numbers_of(boxes))]
        for b, image_size in zip(refined, image_sizes, strict=True):
            b.clip(image_size)
        return refined


def _numbers_of(boxes: list[Boxes]) -> list[int]:
    """Return the number of boxes of each image; in a trace, they are tensors that stay variable."""
    return [b.tensor.shape[0] for b in boxes]
