"""Generalized R-CNN with a semantic branch between the backbone and the RPN.

Shapes: N images, K semantic classes, (H, W) the size of an image or output.
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data.detection_utils import annotations_to_instances
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, build_backbone
from detectron2.modeling.proposal_generator import build_proposal_generator
from detectron2.modeling.roi_heads import build_roi_heads
from detectron2.structures import ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import nn

from ...data.datasets.stuff_labels import stuff_labels_of
from ..inference_steps import extract_features, propose, resize_semantic_logits
from .branch import build_semantic_branch
from .checks import check_parts
from .panoptic import merge_instances_and_stuff
from .targets import SemanticTargets


@META_ARCH_REGISTRY.register()
class SemanticRCNN(GeneralizedRCNN):
    """`GeneralizedRCNN` with one more part, `semantic_branch(features, targets)`.

    The branch runs before the RPN. It returns the features that the RPN and the ROI heads see, so
    it can add a map (HTC's context) or replace the maps of the pyramid (SFPN).
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
            semantic_targets: makes the label maps that the branch learns from.
            output_sem_seg: whether inference also returns "sem_seg", the (K, H, W) logits at output
                size, as Detectron2's `SemanticSegmentor` does. Off by default: for the 183 classes
                of COCO-Stuff and an image of 800x1333 they take 780 MB.
            output_panoptic_seg: whether inference also returns "panoptic_seg", which merges the
                instances with the stuff of the semantic map, as Detectron2's `PanopticFPN` does. It
                needs as much memory as "sem_seg".
            stuff_labels: the semantic classes that are stuff, for panoptic output; see
                `stuff_labels_of` for those of a dataset.
            combine_overlap_thresh: a detection is left out of the panoptic output if more than this
                part of it, in [0, 1), is covered by detections of higher scores.
            combine_stuff_area_thresh: stuff with fewer pixels than this in the output, at least 1,
                is left out of the panoptic output.
            combine_instances_score_thresh: detections with lower scores, in [0, 1], are left out of
                the panoptic output.
            kwargs: the arguments of `GeneralizedRCNN`.

        Raises:
            ValueError: if the parts differ in classes, levels or features, or can't make the
                panoptic output that is asked for.
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
        check_parts(self)

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
        """Train or detect as `GeneralizedRCNN.forward`.

        Args:
            batched_inputs: N dicts; in training they have "instances", "sem_seg", (H, W) labels, or
                both. Images without "instances" train the semantic branch only.

        Returns:
            In training the losses, among them "loss_sem_seg"; at inference a dict for each image
            with "instances", "sem_seg" if `output_sem_seg` is set, and "panoptic_seg" (see
            `merge_instances_and_stuff`) if `output_panoptic_seg` is.
        """
        if not self.training:
            return self.inference(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        gt_instances = [
            x["instances"].to(self.device) if "instances" in x else None for x in batched_inputs
        ]
        targets = self.semantic_targets(
            batched_inputs, gt_instances, images.tensor.shape[-2:], self.device
        )
        features, _, semantic_losses = self.semantic_branch(self.backbone(images.tensor), targets)
        detector_losses = self._train_detector(batched_inputs, images, features, gt_instances)
        return {**semantic_losses, **detector_losses}

    def _train_detector(
        self,
        batched_inputs: list[dict],
        images: ImageList,
        features: dict[str, torch.Tensor],
        gt_instances: list[Instances | None],
    ) -> dict[str, torch.Tensor]:
        """Return the losses of the RPN and the ROI heads, on the images with instance labels.

        Without such an image they are 0. Their gradients, which `DistributedDataParallel` waits
        for, are then 0, too.
        """
        index = [i for i, instances in enumerate(gt_instances) if instances is not None]
        is_labelled = len(index) > 0
        if not is_labelled:
            index = [0]
            nothing = annotations_to_instances([], images.image_sizes[0])
            batched_inputs = [{**batched_inputs[0], "instances": nothing}]
            gt_instances = [nothing.to(self.device)]
        if len(index) < len(images):
            images = ImageList(images.tensor[index], [images.image_sizes[i] for i in index])
            features = {name: maps[index] for name, maps in features.items()}
            batched_inputs = [batched_inputs[i] for i in index]
            gt_instances = [gt_instances[i] for i in index]
        proposals, proposal_losses = propose(self, images, features, batched_inputs, gt_instances)
        _, roi_losses = self.roi_heads(images, features, proposals, gt_instances)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        losses = {**proposal_losses, **roi_losses}
        return losses if is_labelled else {name: 0 * loss for name, loss in losses.items()}

    def inference(
        self,
        batched_inputs: list[dict],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[dict] | list[Instances]:
        """Detect as `GeneralizedRCNN.inference`; for what it returns, see `forward`."""
        images = self.preprocess_image(batched_inputs)
        features, logits = extract_features(self, images)
        if detected_instances is None:
            proposals, _ = propose(self, images, features, batched_inputs)
            results, _ = self.roi_heads(images, features, proposals, None)
        else:
            detected_instances = [x.to(self.device) for x in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, detected_instances)
        if not do_postprocess:
            return results
        outputs = self._postprocess(results, batched_inputs, images.image_sizes)
        if self.output_sem_seg or self.output_panoptic_seg:
            sizes = [output["instances"].image_size for output in outputs]
            sem_segs = resize_semantic_logits(self.semantic_branch, logits, images, sizes)
            for output, sem_seg in zip(outputs, sem_segs, strict=True):
                if self.output_sem_seg:
                    output["sem_seg"] = sem_seg
                if self.output_panoptic_seg:
                    output["panoptic_seg"] = merge_instances_and_stuff(
                        output["instances"],
                        sem_seg.argmax(dim=0),
                        self.stuff_labels,
                        overlap_thresh=self.combine_overlap_thresh,
                        stuff_area_thresh=self.combine_stuff_area_thresh,
                        instances_score_thresh=self.combine_instances_score_thresh,
                    )
        return outputs


def _configured_stuff_labels(cfg: CfgNode) -> list[int]:
    branch = cfg.MODEL.SEMANTIC_BRANCH
    # Only panoptic output needs a dataset whose metadata say what is stuff.
    if branch.STUFF_LABELS or not branch.OUTPUT_PANOPTIC_SEG or not cfg.DATASETS.TRAIN:
        return list(branch.STUFF_LABELS)
    return stuff_labels_of(cfg.DATASETS.TRAIN[0])
