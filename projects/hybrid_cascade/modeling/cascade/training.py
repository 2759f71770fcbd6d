"""Train a cascade: sample the RoIs of each stage, and sum up the losses of its branches.

R RoIs of all images, C channels, h x w feature maps.
"""

import copy

import torch
from detectron2.layers import cat
from detectron2.modeling.roi_heads import select_foreground_proposals
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_loss
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage


class CascadeTraining:
    """The part of `HTCROIHeads` that trains."""

    def train_step(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances],
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """Return the RoIs that were sampled from the proposals, and the losses of all stages.

        Args:
            features: (N, C, h, w) maps by name.
            proposals: those of each image, with "proposal_boxes".
            targets: the ground truth of each image.
        """
        proposals = self.label_and_sample_proposals(proposals, targets)
        losses = self._forward_keypoint(features, proposals)
        storage = get_event_storage()
        box_stages = self._run_box_stages(features, proposals, targets)
        for stage, (predictor, predictions, stage_proposals, boxes, _) in enumerate(box_stages):
            with storage.name_scope(f"stage{stage}"):
                stage_losses = predictor.losses(predictions, stage_proposals)
                if stage in self.mask_head_of_stage:
                    if self.interleaved:
                        stage_proposals = self._resample(
                            boxes, stage_proposals, targets, stage, scope=f"stage{stage}/mask"
                        )
                    stage_losses["loss_mask"] = self._mask_loss(features, stage_proposals, stage)
            weight = self.stage_loss_weights[stage]
            losses.update({f"{k}_stage{stage}": v * weight for k, v in stage_losses.items()})
        return proposals, losses

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances], stage: int = 0
    ) -> list[Instances]:
        """See `ROIHeads.label_and_sample_proposals`; at the IoU threshold of the given stage."""
        if self.resample_stages:  # the refined boxes of the ground truth are told by this field
            proposals = [_mark(p, p.proposal_boxes, False) for p in proposals]
            targets = [_mark(t, t.gt_boxes, True) for t in targets]
        # Detectron2's method matches by `proposal_matcher` of its object: call it on a copy.
        heads_of_stage = copy.copy(self)
        heads_of_stage.proposal_matcher = self.proposal_matchers[stage]
        return super(CascadeTraining, heads_of_stage).label_and_sample_proposals(proposals, targets)

    @torch.no_grad()
    def _match_and_label_boxes(self, proposals, stage, targets):
        """Label as `CascadeROIHeads`, and add masks if the mask branch trains on these boxes."""
        proposals = super()._match_and_label_boxes(proposals, stage, targets)
        if stage in self.mask_head_of_stage and not self.interleaved:
            for proposals_per_image, targets_per_image in zip(proposals, targets, strict=True):
                if len(targets_per_image) > 0:
                    overlaps = pairwise_iou(
                        targets_per_image.gt_boxes, proposals_per_image.proposal_boxes
                    )
                    matched_idxs, _ = self.proposal_matchers[stage](overlaps)
                    for name in ("gt_masks", "gt_has_mask"):
                        if targets_per_image.has(name):
                            value = targets_per_image.get(name)[matched_idxs]
                            proposals_per_image.set(name, value)
        return proposals

    def _resample(
        self,
        boxes: list[torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances],
        stage: int,
        scope: str,
    ) -> list[Instances]:
        """Match and sample boxes again that a stage has refined from proposals.

        Args:
            boxes: (R, 4) for each image, refined from `proposals`, row by row.
            stage: whose IoU threshold counts.
            scope: what the names of logged numbers start with.
        """
        if self.resample_stages:
            boxes = [b[~p.is_ground_truth] for b, p in zip(boxes, proposals, strict=True)]
        image_sizes = [p.image_size for p in proposals]
        refined = self._create_proposals_from_boxes(boxes, image_sizes)
        for p in refined:
            # Sampling adds the ground-truth boxes, which asks for this field; nothing reads it.
            p.objectness_logits = p.proposal_boxes.tensor.new_zeros(len(p))
        with get_event_storage().name_scope(scope):
            return self.label_and_sample_proposals(refined, targets, stage)

    def _mask_loss(
        self, features: dict[str, torch.Tensor], proposals: list[Instances], stage: int
    ) -> torch.Tensor:
        instances, _ = select_foreground_proposals(proposals, self.num_classes)
        # Those of mixed data, see `PartialMasksMapper`.
        instances = [i[i.gt_has_mask] if i.has("gt_has_mask") else i for i in instances]
        index = self.mask_head_of_stage[stage]
        boxes = [i.proposal_boxes for i in instances]
        classes = cat([i.gt_classes for i in instances])
        (logits,) = self._mask_logits(features, boxes, classes, [index])
        head = self.mask_head[index]
        return mask_rcnn_loss(logits, instances, head.vis_period) * head.loss_weight


def _mark(instances: Instances, boxes: Boxes, is_ground_truth: bool) -> Instances:
    """Return the instances, whose boxes are given, with one more field, "is_ground_truth"."""
    mark = boxes.tensor.new_full((len(boxes),), is_ground_truth, dtype=torch.bool)
    fields = {**instances.get_fields(), "is_ground_truth": mark}
    return Instances(instances.image_size, **fields)
