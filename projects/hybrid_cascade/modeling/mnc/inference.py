"""Detect with MNC: run its stages, collect their candidates, make detections of these.

N images, R RoIs, D detections, M the side of a mask in cells, H x W the size of an image.
"""

from detectron2.structures import Instances
from torch import Tensor

from .candidates import Candidates, suppress_class_boxes, suppress_rois, vote
from .gradient_clamp import BoxGradientClamp

TEST_OUTPUTS = ("voting", "nms", "boxes")


def is_number_of_stages(number: object) -> bool:
    """Tell whether a cascade can have this many stages: 3, 5, 7, ..."""
    return isinstance(number, int) and number >= 3 and number % 2 == 1


class MNCInference:
    """The part of `MNCROIHeads` that detects, in eval mode.

    The argument `test_stages` of a call replaces `self.test_stages`, which stays as it is.
    """

    @property
    def test_stage_choices(self) -> range:
        """3, 5, ... up to the last stage of training or of inference; a call may run more."""
        return range(3, max(self.num_stages, self.test_stages or 0) + 1, 2)

    def detect(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        *,
        test_stages: int | None = None,
    ) -> list[Instances]:
        """Return the detections of N images; the arguments are those of `find_candidates`.

        See `merge` for their fields.
        """
        candidates = self.find_candidates(features, proposals, test_stages=test_stages)
        sizes = [p.image_size for p in proposals]
        return [self.merge(c, size) for c, size in zip(candidates, sizes, strict=True)]

    def find_candidates(
        self,
        features: dict[str, Tensor],
        proposals: list[Instances],
        *,
        test_stages: int | None = None,
    ) -> list[list[Candidates]]:
        """Return the candidates of N images, an item for each pair of stages that ran.

        Args:
            features: from the backbone; maps (N, C, h, w).
            proposals: N Instances with "proposal_boxes".
            test_stages: how many stages run: 3, 5, 7, ..., also more than are trained; None for the
                constructor's `test_stages`.

        Raises:
            ValueError: if there is no such number of stages.
        """
        if test_stages is None:
            test_stages = self.test_stages or self.num_stages
        if not is_number_of_stages(test_stages):
            raise ValueError(f"test_stages={test_stages!r} must be 3, 5, 7, ...")
        boxes = [p.proposal_boxes for p in proposals]
        image_sizes = [p.image_size for p in proposals]
        clamp = BoxGradientClamp(self.max_box_gradient, len(proposals))
        rounds = []
        for stage in range(2, test_stages, 2):
            if stage > 2:
                boxes = self._refine(boxes, predictions, image_sizes, clamp)  # noqa: F821
            mask_logits, predictions = self._run_stages(features, boxes, image_sizes)
            scores, box_scores, deltas = predictions
            instances = [
                Instances(size, proposal_boxes=b)
                for b, size in zip(boxes, image_sizes, strict=True)
            ]
            rounds.append(
                map(
                    Candidates,
                    [stage + 1 == test_stages] * len(boxes),
                    [b.tensor for b in boxes],
                    mask_logits.sigmoid().split([b.tensor.shape[0] for b in boxes]),
                    self.predictor.predict_probs((scores, deltas), instances),
                    self.predictor.predict_probs((box_scores, deltas), instances),
                    self.predictor.predict_boxes((scores, deltas), instances),
                )
            )
        return [list(image) for image in zip(*rounds, strict=True)]

    def merge(self, candidates: list[Candidates], image_size: tuple[int, int]) -> Instances:
        """Return the detections of an image from the candidates of its stages.

        The candidates may come from several models, or from several views of the image if their
        boxes are in the same frame (`VotingEnsemble`).

        Args:
            candidates: of one image.
            image_size: (H, W), in pixels.

        Returns:
            D instances with "pred_boxes", "scores", "pred_classes", and by `test_output`
            "pred_masks": `ImageMasks` (D, H, W) for "voting", probabilities (D, 1, M, M) of the
            inside of the boxes for "nms", none for "boxes".
        """
        if self.test_output == "nms":
            return suppress_rois(candidates, image_size, self.predictor, nms_iou=self.nms_iou)
        if self.test_output == "boxes":
            return suppress_class_boxes(
                candidates, image_size, self.predictor, nms_iou=self.nms_iou
            )
        return vote(
            candidates,
            image_size,
            self.predictor,
            nms_iou=self.nms_iou,
            merge_iou=self.merge_iou,
            mask_threshold=self.mask_threshold,
            binarize_before_voting=self.binarize_before_voting,
        )
