"""Several R-CNN models of one config score, refine and mask the same boxes.

Shapes: R proposals of an image from all models, D detections of an image, K classes, M the mask
side.
"""

from collections.abc import Sequence

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import CascadeROIHeads, ROIHeads, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Instances
from torch import nn

from ..cascade.roi_heads import HTCROIHeads
from ..semantic.rcnn import SemanticRCNN


class RCNNEnsemble(GeneralizedRCNN):
    """A `GeneralizedRCNN` for inference whose predictions are the means of those of its models.

    The proposals of all models come together. Each model classifies and refines all of them, in
    its own cascade if it has one; the class probabilities and the refined boxes of a proposal are
    averaged over the models. One suppression with the thresholds of the first model then leaves
    the detections, and each model predicts their masks, whose probabilities are averaged.
    """

    def __init__(self, models: Sequence[GeneralizedRCNN]):
        """
        Args:
            models: `GeneralizedRCNN`s or `SemanticRCNN`s with the same classes, with `HTCROIHeads`
                or `StandardROIHeads`.

        Raises:
            ValueError: for other models and heads, for keypoints, and without an RPN.
        """
        for model in models:
            check_can_average(model)
        first = models[0]
        super().__init__(
            backbone=first.backbone,
            proposal_generator=first.proposal_generator,
            roi_heads=first.roi_heads,
            pixel_mean=first.pixel_mean.flatten().tolist(),
            pixel_std=first.pixel_std.flatten().tolist(),
            input_format=first.input_format,
        )
        self.models = nn.ModuleList(models)
        self.to(first.device)

    @torch.no_grad()
    def inference(
        self,
        batched_inputs: list[dict],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[dict] | list[Instances]:
        """See `GeneralizedRCNN.inference`. Masks are left out where the first model's are off."""
        images = self.preprocess_image(batched_inputs)
        features = [_extract_features(model, images.tensor) for model in self.models]
        if detected_instances is None:
            results = self._detect_boxes(images, features)
        else:
            results = [x.to(self.device) for x in detected_instances]
        if self.roi_heads.mask_on:
            self._add_masks(features, results)
        if do_postprocess:
            return self._postprocess(results, batched_inputs, images.image_sizes)
        return results

    def _detect_boxes(self, images, features: list[dict[str, torch.Tensor]]) -> list[Instances]:
        of_models = [
            model.proposal_generator(images, maps, None)[0]
            for model, maps in zip(self.models, features, strict=True)
        ]
        proposals = [Instances.cat(of_image) for of_image in zip(*of_models, strict=True)]
        predictions = [
            _predict_boxes_and_scores(model.roi_heads, maps, proposals)
            for model, maps in zip(self.models, features, strict=True)
        ]
        boxes, scores = (
            [torch.stack(of_image).mean(dim=0) for of_image in zip(*of_models, strict=True)]
            for of_models in zip(*predictions, strict=True)
        )
        if isinstance(self.roi_heads, HTCROIHeads):
            return self.roi_heads.select_boxes(boxes, scores, images.image_sizes)
        predictor = self.roi_heads.box_predictor
        instances, _ = fast_rcnn_inference(
            boxes,
            scores,
            images.image_sizes,
            predictor.test_score_thresh,
            predictor.test_nms_thresh,
            predictor.test_topk_per_image,
        )
        return instances

    def _add_masks(self, features: list[dict[str, torch.Tensor]], instances: list[Instances]):
        """Add "pred_masks", (D, 1, M, M) probabilities averaged over the models."""
        of_models = []
        for model, maps in zip(self.models, features, strict=True):
            own = [Instances(i.image_size, **i.get_fields()) for i in instances]
            own = model.roi_heads.forward_with_given_boxes(maps, own)
            of_models.append([i.pred_masks for i in own])
        for i, masks in zip(instances, zip(*of_models, strict=True), strict=True):
            i.pred_masks = torch.stack(masks).mean(dim=0)


def check_can_average(model: nn.Module) -> None:
    """Raise a ValueError for a model that an `RCNNEnsemble` can't average."""
    if type(model) not in (GeneralizedRCNN, SemanticRCNN):
        raise ValueError(f"Checkpoints of a {type(model).__name__} can't be averaged")
    heads = model.roi_heads
    is_detectron2_cascade = isinstance(heads, CascadeROIHeads) and not isinstance(
        heads, HTCROIHeads
    )
    if not isinstance(heads, StandardROIHeads) or is_detectron2_cascade:
        raise ValueError(
            f"Checkpoints of models with {type(heads).__name__} can't be averaged, those with "
            "HTCROIHeads (with its switches off Detectron2's cascade) and StandardROIHeads can"
        )
    if heads.keypoint_on:
        raise ValueError("Keypoints of several checkpoints can't be averaged")
    if model.proposal_generator is None:
        raise ValueError("Checkpoints are averaged on the proposals of an RPN; the model has none")


def _extract_features(model: GeneralizedRCNN, images: torch.Tensor) -> dict[str, torch.Tensor]:
    features = model.backbone(images)
    if isinstance(model, SemanticRCNN):
        features, _, _ = model.semantic_branch(features, None)
    return features


def _predict_boxes_and_scores(
    heads: ROIHeads, features: dict[str, torch.Tensor], proposals: list[Instances]
):
    """Boxes, (R, 4) or (R, 4 K), and probabilities, (R, K + 1), as a list over the images each."""
    if isinstance(heads, HTCROIHeads):
        return heads.predict_boxes_and_scores(features, proposals)
    maps = [features[f] for f in heads.box_in_features]
    x = heads.box_head(heads.box_pooler(maps, [p.proposal_boxes for p in proposals]))
    predictor = heads.box_predictor
    predictions = predictor(x)
    return predictor.predict_boxes(predictions, proposals), predictor.predict_probs(
        predictions, proposals
    )
