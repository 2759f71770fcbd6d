"""A region proposal network that can be trained through the boxes that it proposes."""

from detectron2.config import configurable
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals

from .gradient_clamp import limit_gradient


@PROPOSAL_GENERATOR_REGISTRY.register()
class RPNWithBoxGradients(RPN):
    """Detectron2's RPN, whose proposals keep their graph.

    The coordinates of the proposals are differentiable functions of the box deltas, so that the
    losses of the stages that follow train the deltas too (MNC, arXiv 1512.04412, Section 3.1).
    Which proposals survive the top-k selection and NMS is not differentiable and taken as given.
    """

    @configurable
    def __init__(
        self, *, box_gradients: bool = True, max_box_gradient: float | None = 1 / 512, **kwargs
    ):
        """
        Args:
            box_gradients: False makes it Detectron2's RPN.
            max_box_gradient: bound, for a batch of one image, of each box delta's gradient that
                comes from the later stages (`limit_gradient`); None for no bound. The RPN's own
                losses are not limited.
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
        """See `RPN.predict_proposals`, which detaches."""
        if not (self.training and self.box_gradients):
            return super().predict_proposals(
                anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
            )
        bound, num_images = self.max_box_gradient, len(image_sizes)
        deltas = [limit_gradient(d, bound, num_images) for d in pred_anchor_deltas]
        return find_top_rpn_proposals(
            self._decode_proposals(anchors, deltas),
            [logits.detach() for logits in pred_objectness_logits],
            image_sizes,
            self.nms_thresh,
            self.pre_nms_topk[self.training],
            self.post_nms_topk[self.training],
            self.min_box_size,
            self.training,
        )
