"""A region proposal network that can be trained through the boxes that it proposes."""

from detectron2.config import configurable
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import Instances

from .gradient_clamp import BoxGradientClamp, ClampedBoxes


@PROPOSAL_GENERATOR_REGISTRY.register()
class RPNWithBoxGradients(RPN):
    """Detectron2's RPN, whose proposals are not detached.

    Their coordinates are differentiable functions of the box deltas, so that the losses of the
    later stages train the deltas too (MNC, arXiv 1512.04412, Section 3.1). Which proposals the
    top-k selection and NMS keep is not differentiable and taken as given.
    """

    @configurable
    def __init__(
        self, *, box_gradients: bool = True, max_box_gradient: float | None = 1 / 512, **kwargs
    ):
        """
        Args:
            box_gradients: False detaches the proposals, as Detectron2's RPN does.
            max_box_gradient: bound, for a batch of one image, of the gradient that the later stages
                send to each box delta (`BoxGradientClamp`); None for no bound. The gradients of the
                RPN's own losses have none.
            kwargs: the arguments of `RPN`.
        """
        super().__init__(**kwargs)
        self.box_gradients = box_gradients
        self.max_box_gradient = max_box_gradient

    @classmethod
    def from_config(cls, cfg, input_shape):
        return {
            **super().from_config(cfg, input_shape),
            "box_gradients": cfg.MODEL.ROI_MNC_HEAD.END_TO_END,
            "max_box_gradient": cfg.MODEL.ROI_MNC_HEAD.MAX_BOX_GRADIENT or None,
        }

    def predict_proposals(self, anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes):
        """Return proposals as `RPN.predict_proposals`, with gradients in training."""
        if not (self.training and self.box_gradients):
            return super().predict_proposals(
                anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
            )
        clamp = BoxGradientClamp(self.max_box_gradient, len(image_sizes))
        proposals = find_top_rpn_proposals(
            self._decode_proposals(anchors, [clamp(deltas) for deltas in pred_anchor_deltas]),
            [logits.detach() for logits in pred_objectness_logits],
            image_sizes,
            self.nms_thresh,
            self.pre_nms_topk[self.training],
            self.post_nms_topk[self.training],
            self.min_box_size,
            self.training,
        )
        for p in proposals:
            p.proposal_boxes = ClampedBoxes(p.proposal_boxes.tensor, clamp)
        return proposals


def check_box_gradients(proposals: list[Instances]) -> None:
    """Raise a ValueError if no gradients can flow through the boxes of proposals."""
    if not all(p.proposal_boxes.tensor.requires_grad for p in proposals):
        raise ValueError(
            "end_to_end=True trains through the boxes, but the proposals have no gradients. Use"
            " RPNWithBoxGradients with box_gradients=True as the proposal generator, or set"
            " end_to_end=False."
        )
