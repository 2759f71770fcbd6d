"""Generalized R-CNN with a semantic branch between the backbone and the proposals."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, build_backbone
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.modeling.proposal_generator import build_proposal_generator
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn import functional as F

from ...data.datasets.stuff_labels import stuff_labels_of
from .branch import build_semantic_branch
from .panoptic import merge_instances_and_stuff
from .targets import SemanticTargets


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
        output_panoptic_seg: bool = False,
        stuff_labels: Sequence[int] = (),
        combine_overlap_thresh: float = 0.5,
        combine_stuff_area_thresh: int = 4096,
        combine_instances_score_thresh: float = 0.5,
        **kwargs,
    ):
        """
        Args:
            semantic_branch: see `SEMANTIC_BRANCH_REGISTRY`.
            semantic_targets: makes the branch's label maps in training.
            output_sem_seg: whether inference also returns "sem_seg", the (K, height, width) logits
                at output size, as Detectron2's `SemanticSegmentor` does. Off by default: for the
                183 classes of COCO-Stuff they are 780 MB an image of 800x1333.
            output_panoptic_seg: whether inference also returns "panoptic_seg", the instances and
                the stuff of the semantic map in one, as Detectron2's `PanopticFPN` does. It makes
                the same logits on the way.
            stuff_labels: the semantic classes that are stuff, for panoptic output; those of a data
                set are in `stuff_labels_of`.
            combine_overlap_thresh: a detection is left out of the panoptic output if more than this
                part of it, in [0, 1), is covered by detections of higher scores.
            combine_stuff_area_thresh: stuff with fewer pixels in the image is left out.
            combine_instances_score_thresh: detections of lower scores are left out.
            kwargs: the arguments of `GeneralizedRCNN`.

        Raises:
            ValueError: if the parts do not fit together: classes, levels, or features; or can't
                make panoptic output.
        """
        super().__init__(**kwargs)
        self.semantic_branch = semantic_branch
        self.semantic_targets = semantic_targets
        self.output_sem_seg = output_sem_seg
        self.output_panoptic_seg = output_panoptic_seg
        self.stuff_labels = list(stuff_labels)
        self.combine_overlap_thresh = combine_overlap_thresh
        self.combine_stuff_area_thresh = combine_stuff_area_thresh
        self.combine_instances_score_thresh = combine_instances_score_thresh
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
        if output_panoptic_seg:
            self._check_panoptic_output()

    @classmethod
    def from_config(cls, cfg):
        backbone = build_backbone(cfg)
        branch = build_semantic_branch(cfg, backbone.output_shape())
        combine = cfg.MODEL.PANOPTIC_FPN.COMBINE
        return {
            "backbone": backbone,
            "semantic_branch": branch,
            "semantic_targets": SemanticTargets(cfg, branch.num_classes),
            "output_panoptic_seg": cfg.MODEL.SEMANTIC_BRANCH.OUTPUT_PANOPTIC_SEG,
            "stuff_labels": _configured_stuff_labels(cfg),
            "combine_overlap_thresh": combine.OVERLAP_THRESH,
            "combine_stuff_area_thresh": combine.STUFF_AREA_LIMIT,
            "combine_instances_score_thresh": combine.INSTANCES_CONFIDENCE_THRESH,
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
            "instances", "sem_seg" if `output_sem_seg` is set, and "panoptic_seg" (see
            `merge_instances_and_stuff`) if `output_panoptic_seg` is.
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
        if self.output_sem_seg or self.output_panoptic_seg:
            logits = F.interpolate(
                logits, size=images.tensor.shape[-2:], mode="bilinear", align_corners=False
            )
            for output, logit, size in zip(outputs, logits, images.image_sizes, strict=True):
                instances = output["instances"]
                sem_seg = sem_seg_postprocess(logit, size, *instances.image_size)
                if self.output_sem_seg:
                    output["sem_seg"] = sem_seg
                if self.output_panoptic_seg:
                    output["panoptic_seg"] = merge_instances_and_stuff(
                        instances,
                        sem_seg.argmax(dim=0),
                        self.stuff_labels,
                        overlap_thresh=self.combine_overlap_thresh,
                        stuff_area_thresh=self.combine_stuff_area_thresh,
                        instances_score_thresh=self.combine_instances_score_thresh,
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

    def _check_panoptic_output(self) -> None:
        num_classes = self.semantic_branch.num_classes
        if not self.stuff_labels or self.semantic_targets.source == "instances":
            raise ValueError(
                "Panoptic output needs stuff, which maps painted from instances don't have: train "
                "on label maps with stuff and give its labels as model.stuff_labels "
                f"(MODEL.SEMANTIC_BRANCH.STUFF_LABELS). Now stuff_labels={self.stuff_labels} and "
                f"the semantic targets' source is {self.semantic_targets.source!r}."
            )
        if wrong := [label for label in self.stuff_labels if not 0 <= label < num_classes]:
            raise ValueError(
                f"stuff_labels has {wrong}, but the semantic branch has num_classes={num_classes}"
            )
        # Detectron2's ROI heads say so; those of MNC have masks unless they are asked for boxes.
        heads = self.roi_heads
        if not getattr(heads, "mask_on", True) or getattr(heads, "test_output", "") == "boxes":
            raise ValueError(
                f"Panoptic output needs masks; {type(self.roi_heads).__name__} has none"
            )
        if not 0 <= self.combine_overlap_thresh < 1:
            raise ValueError(
                f"combine_overlap_thresh={self.combine_overlap_thresh} is not in [0, 1)"
            )
        # At 0, Detectron2 lists stuff that instances hide altogether.
        if self.combine_stuff_area_thresh < 1:
            raise ValueError(
                f"combine_stuff_area_thresh={self.combine_stuff_area_thresh} must be at least 1"
            )


def _configured_stuff_labels(cfg: CfgNode) -> list[int]:
    branch = cfg.MODEL.SEMANTIC_BRANCH
    # A data set need not say what its stuff is before somebody asks for it.
    if branch.STUFF_LABELS or not branch.OUTPUT_PANOPTIC_SEG or not cfg.DATASETS.TRAIN:
        return list(branch.STUFF_LABELS)
    return stuff_labels_of(cfg.DATASETS.TRAIN[0])


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
