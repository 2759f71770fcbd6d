"""Generalized R-CNN with a semantic branch between the backbone and the proposals."""

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, build_backbone
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.modeling.proposal_generator import build_proposal_generator
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn import functional as F

from .semantic_branch import build_semantic_branch
from .semantic_targets import SemanticTargets


@META_ARCH_REGISTRY.register()
class SemanticRCNN(GeneralizedRCNN):
    """`GeneralizedRCNN` plus one seam, `semantic_branch(features, targets)`.

    The branch runs before the proposal generator and returns the features that everything after it
    sees, so it can add a map (HTC's context) or replace the pyramid's maps (SFPN).
    """

    @configurable
    def __init__(
        self,
        *,
        semantic_branch: nn.Module,
        semantic_targets: SemanticTargets,
        output_sem_seg: bool = False,
        **kwargs,
    ):
        """
        Args:
            semantic_branch: see `SEMANTIC_BRANCH_REGISTRY`.
            semantic_targets: makes the branch's label maps in training.
            output_sem_seg: whether inference also returns "sem_seg", the (K, height, width) logits
                at output size, as Detectron2's `SemanticSegmentor` does. Off by default: for the
                183 classes of COCO-Stuff they are 780 MB an image of 800x1333.
            kwargs: the arguments of `GeneralizedRCNN`.

        Raises:
            ValueError: if the parts do not fit together: classes, levels, or features.
        """
        super().__init__(**kwargs)
        self.semantic_branch = semantic_branch
        self.semantic_targets = semantic_targets
        self.output_sem_seg = output_sem_seg
        if semantic_targets.num_classes != semantic_branch.num_classes:
            raise ValueError(
                f"semantic_targets.num_classes={semantic_targets.num_classes} differs from "
                f"semantic_branch.num_classes={semantic_branch.num_classes}"
            )
        levels = list(self.backbone.output_shape())
        if missing := set(semantic_branch.in_features) - set(levels):
            raise ValueError(
                f"semantic_branch.in_features={semantic_branch.in_features} asks for "
                f"{sorted(missing)}; the backbone has {levels}"
            )
        check_semantic_features(self)

    @classmethod
    def from_config(cls, cfg):
        backbone = build_backbone(cfg)
        branch = build_semantic_branch(cfg, backbone.output_shape())
        return {
            "backbone": backbone,
            "semantic_branch": branch,
            "semantic_targets": SemanticTargets(cfg, branch.num_classes),
            "proposal_generator": build_proposal_generator(cfg, branch.output_shape()),
            "roi_heads": build_roi_heads(cfg, branch.output_shape()),
            "input_format": cfg.INPUT.FORMAT,
            "vis_period": cfg.VIS_PERIOD,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """As `GeneralizedRCNN.forward`; in training the dicts may have "sem_seg", (h, w) labels.

        Returns:
            The losses in training, with "loss_sem_seg"; at inference a dict for each image with
            "instances", and "sem_seg" if `output_sem_seg` is set.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        gt_instances = [x["instances"].to(self.device) for x in batched_inputs]
        targets = self.semantic_targets(batched_inputs, gt_instances, images.tensor.shape[-2:])
        features, _, semantic_losses = self.semantic_branch(self.backbone(images.tensor), targets)
        proposals, proposal_losses = self._propose(images, features, batched_inputs, gt_instances)
        _, detector_losses = self.roi_heads(images, features, proposals, gt_instances)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        return {**semantic_losses, **proposal_losses, **detector_losses}

    def inference(
        self,
        batched_inputs: list[dict],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[dict] | list[Instances]:
        """See `GeneralizedRCNN.inference`."""
        images = self.preprocess_image(batched_inputs)
        features, logits, _ = self.semantic_branch(self.backbone(images.tensor), None)
        if detected_instances is None:
            proposals, _ = self._propose(images, features, batched_inputs, None)
            results, _ = self.roi_heads(images, features, proposals, None)
        else:
            detected_instances = [x.to(self.device) for x in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, detected_instances)
        if not do_postprocess:
            return results
        outputs = self._postprocess(results, batched_inputs, images.image_sizes)
        if self.output_sem_seg:
            logits = F.interpolate(
                logits, size=images.tensor.shape[-2:], mode="bilinear", align_corners=False
            )
            for output, logit, size in zip(outputs, logits, images.image_sizes, strict=True):
                output["sem_seg"] = sem_seg_postprocess(
                    logit, size, *output["instances"].image_size
                )
        return outputs

    def _propose(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        batched_inputs: list[dict],
        gt_instances: list[Instances] | None,
    ):
        if self.proposal_generator is None:
            return [x["proposals"].to(self.device) for x in batched_inputs], {}
        return self.proposal_generator(images, features, gt_instances)


def check_semantic_features(model: GeneralizedRCNN) -> None:
    """Raise a ValueError if the ROI heads fuse semantic features that nothing in the model makes.

    `SemanticRCNN` checks itself; the trainer calls this for the plain `GeneralizedRCNN`, which
    would otherwise fail in its first iteration.
    """
    fusion = getattr(model.roi_heads, "semantic_fusion", "none")
    if fusion == "none":
        return
    branch = getattr(model, "semantic_branch", None)
    wanted = model.roi_heads.semantic_in_feature
    if branch is None or wanted not in branch.output_shape():
        raise ValueError(
            f"The ROI heads have semantic_fusion={fusion!r}, but no semantic branch of the "
            f"{type(model).__name__} makes the feature {wanted!r}. Set model._target_ to "
            "SemanticRCNN with a SemanticContextHead (MODEL.META_ARCHITECTURE: SemanticRCNN) or a "
            "SemanticPyramid with output_context_map=True (MODEL.SEMANTIC_BRANCH), or "
            "model.roi_heads.semantic_fusion to 'none' (MODEL.ROI_HTC_HEAD.SEMANTIC_FUSION)."
        )
