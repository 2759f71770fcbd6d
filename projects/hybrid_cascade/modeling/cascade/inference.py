"""Detect with a cascade: average over its stages, select boxes, predict their masks.

N images, R RoIs, C channels, K instance classes, T stages, D detections that remain, M side of a
mask.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from detectron2.layers import cat
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Instances

from .box_selection import candidates_above, nms_ending_early, suppress_softly
from .mask_branch import add_mean_masks


class BoxStage(NamedTuple):
    """What one stage of the box cascade has computed.

    Attributes:
        predictor: the last layers of the stage.
        predictions: what they return for `proposals`: (R, K + 1) class logits and (R, 4) deltas, or
            (R, 4 K) if boxes are regressed for each class.
        proposals: the boxes that came in, one `Instances` for each image.
        boxes: the boxes that go to the next stage, (R, 4) for each image.
        class_boxes: as `boxes`, or (R, 4 K), the boxes of each class.
    """

    predictor: FastRCNNOutputLayers
    predictions: tuple[torch.Tensor, torch.Tensor]
    proposals: list[Instances]
    boxes: list[torch.Tensor]
    class_boxes: Sequence[torch.Tensor]


class CascadeInference:
    """The part of `HTCROIHeads` that detects, in eval mode.

    The argument `test_stages` of a call replaces `self.test_stages`, which stays as it is.
    """

    @property
    def test_stage_choices(self) -> range:
        """The values of `test_stages`."""
        return range(1, self.num_cascade_stages + 1)

    @property
    def final_predictor(self) -> FastRCNNOutputLayers:
        """The predictor of the last stage that inference runs, whose test thresholds count."""
        return self._last_predictor(None)

    def _last_predictor(self, test_stages: int | None) -> FastRCNNOutputLayers:
        return self.box_predictor[self._num_test_stages(test_stages) - 1]

    def _num_test_stages(self, test_stages: int | None) -> int:
        """Return how many stages run in a call with this argument, T at most.

        Raises:
            ValueError: for a number that is not in [1, T].
        """
        if test_stages is None:
            test_stages = self.test_stages
        if test_stages is None:
            return self.num_cascade_stages
        if test_stages not in self.test_stage_choices:
            raise ValueError(f"test_stages={test_stages} is not in [1, {self.num_cascade_stages}]")
        return test_stages

    def detect(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        *,
        test_stages: int | None = None,
    ) -> list[Instances]:
        """Return what inference returns: boxes and masks.

        Args:
            features: (N, C, h, w) maps by name.
            proposals: those of each image, with "proposal_boxes".
            test_stages: run the first of the T stages only; None: as `self.test_stages` says.

        Returns:
            For each image, D instances with "pred_boxes", "scores", "pred_classes" and, if the
            heads have masks, "pred_masks", (D, 1, M, M) probabilities.

        Raises:
            ValueError: for `test_stages` out of range.
        """
        instances = self.detect_boxes(features, proposals, test_stages=test_stages)
        instances = self._forward_mask(features, instances, test_stages)
        return self._forward_keypoint(features, instances)

    def detect_boxes(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        *,
        test_stages: int | None = None,
        soft_suppression: bool = True,
    ) -> list[Instances]:
        """Return what `detect` returns, without masks.

        Args:
            features, proposals, test_stages: as in `detect`.
            soft_suppression: as in `select_boxes`.
        """
        boxes, scores = self.predict_boxes_and_scores(features, proposals, test_stages=test_stages)
        return self.select_boxes(
            boxes,
            scores,
            [p.image_size for p in proposals],
            test_stages=test_stages,
            soft_suppression=soft_suppression,
        )

    def predict_boxes_and_scores(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        *,
        test_stages: int | None = None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Refine and classify each proposal at inference, before any is suppressed.

        Arguments are as in `detect`.

        Returns:
            The boxes of the last stage for each image, (R, 4), or (R, 4 K) if they are regressed
            for each class, and the probabilities of the classes and the background, (R, K + 1).
        """
        num_stages = self._num_test_stages(test_stages)
        stages = list(self._run_box_stages(features, proposals, num_stages=num_stages))
        predictor, proposals, boxes = (
            stages[-1].predictor,
            stages[-1].proposals,
            stages[-1].class_boxes,
        )
        if self.average_logits:
            logits = sum(stage.predictions[0] for stage in stages) / num_stages
            return boxes, predictor.predict_probs((logits, None), proposals)
        scores_per_stage = [s.predictor.predict_probs(s.predictions, s.proposals) for s in stages]
        if not self.average_scores:
            return boxes, scores_per_stage[-1]
        return boxes, [sum(scores) / num_stages for scores in zip(*scores_per_stage, strict=True)]

    def select_boxes(
        self,
        boxes: list[torch.Tensor],
        scores: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
        *,
        test_stages: int | None = None,
        soft_suppression: bool = True,
    ) -> list[Instances]:
        """Select detections among scored boxes, by NMS or soft-NMS, as `self.soft_nms` says.

        Args:
            boxes, scores: as from `predict_boxes_and_scores`.
            image_sizes: (height, width) of each image.
            test_stages: the thresholds are those of the last stage that runs.
            soft_suppression: if False, and `self.soft_nms` is not "none", return all candidates
                above the score threshold; `suppress_softly` selects among them.

        Returns:
            For each image, D instances with "pred_boxes", "scores" and "pred_classes".
        """
        predictor = self._last_predictor(test_stages)
        score_thresh = predictor.test_score_thresh
        images = list(zip(boxes, scores, image_sizes, strict=True))
        if self.soft_nms == "none":
            nms_thresh, topk = predictor.test_nms_thresh, predictor.test_topk_per_image
            return [nms_ending_early(*image, score_thresh, nms_thresh, topk) for image in images]
        candidates = [candidates_above(*image, score_thresh) for image in images]
        if not soft_suppression:
            return candidates
        return [self.suppress_softly(c, test_stages=test_stages) for c in candidates]

    def suppress_softly(self, instances: Instances, *, test_stages: int | None = None) -> Instances:
        """Return the best of the candidates of an image after soft-NMS, with decayed scores.

        Args:
            instances: candidates with "pred_boxes", "scores" and "pred_classes". Not changed.
            test_stages: as in `select_boxes`.
        """
        predictor = self._last_predictor(test_stages)
        return suppress_softly(
            instances,
            self.soft_nms,
            predictor.test_nms_thresh,
            self.soft_nms_sigma,
            self.soft_nms_score_thresh,
            predictor.test_topk_per_image,
        )

    def _forward_box(self, features, proposals, targets=None):
        """Detect boxes; Detectron2 has this name for it."""
        return self.detect_boxes(features, proposals)

    def _forward_mask(self, features, instances, test_stages=None):
        """Add "pred_masks", (D, 1, M, M) probabilities, to the detected instances at inference."""
        if not self.mask_on:
            return instances
        heads = range(min(self._num_test_stages(test_stages), len(self.mask_head)))
        logits = self._mask_logits(
            features,
            [i.pred_boxes for i in instances],
            cat([i.pred_classes for i in instances]),
            heads if self.average_masks else heads[-1:],
        )
        add_mean_masks(logits, instances)
        return instances
