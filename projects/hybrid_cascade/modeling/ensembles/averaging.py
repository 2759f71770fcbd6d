"""Several R-CNN models, of one config or of several, score, refine and mask the same boxes.

Shapes: N images, R proposals of an image from all models, D detections of an image, K classes, M
the side of a mask.
"""

from collections.abc import Sequence

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import CascadeROIHeads, ROIHeads, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import ImageList, Instances
from torch import nn

from ..cascade.roi_heads import HTCROIHeads
from ..inference_steps import check_eval_mode, extract_features, predict_masks, propose
from ..semantic.rcnn import SemanticRCNN
from .members import boxes_of_one_kind, check_members, images_for, masks_of_one_size


class RCNNEnsemble(GeneralizedRCNN):
    """A `GeneralizedRCNN` for inference whose predictions are the means of those of its models.

    The proposals of all models are put together. Each model classifies and refines all of them, in
    its own cascade if it has one; the class probabilities and the refined boxes of a proposal are
    averaged over the models. One suppression with the thresholds of the first model then leaves
    the detections, and each model predicts their masks, whose probabilities are averaged.

    The models may differ in all that makes these predictions: backbone, branches, number of stages,
    normalization of the pixels, padding, RGB or BGR. Boxes that are the same for all classes are
    averaged with those of each class, and masks have the resolution of the first model's.
    """

    def __init__(self, models: Sequence[GeneralizedRCNN]):
        """
        Args:
            models: `GeneralizedRCNN`s or `SemanticRCNN`s with the same classes, with `HTCROIHeads`
                or `StandardROIHeads`. Images come in the `input_format` of the first. If it
                predicts masks, all models do.

        Raises:
            ValueError: for other models and heads, for keypoints, without an RPN, and for models
                that differ in classes, or in input formats other than "RGB" and "BGR".
        """
        for model in models:
            check_can_average(model)
        check_members(models)
        if models[0].roi_heads.mask_on and not all(m.roi_heads.mask_on for m in models):
            raise ValueError(
                "The first model predicts masks, so that all have to. Let a model without masks be "
                "the first, and the result is boxes only."
            )
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
        images, features = self._extract_features(batched_inputs)
        if detected_instances is None:
            results = self._detect_boxes(batched_inputs, images, features)
        else:
            results = [x.to(self.device) for x in detected_instances]
        if self.roi_heads.mask_on:
            self._add_masks(features, results)
        if do_postprocess:
            return self._postprocess(results, batched_inputs, images[0].image_sizes)
        return results

    @torch.no_grad()
    def detect_boxes(
        self, batched_inputs: list[dict], *, soft_suppression: bool = True
    ) -> list[Instances]:
        """Detect without masks, see `inference_steps.detect_boxes`."""
        check_eval_mode(self)
        images, features = self._extract_features(batched_inputs)
        return self._detect_boxes(batched_inputs, images, features, soft_suppression)

    def _extract_features(
        self, batched_inputs: list[dict]
    ) -> tuple[list[ImageList], list[dict[str, torch.Tensor]]]:
        """Return the normalized and padded images of each model, and its maps."""
        images = [
            model.preprocess_image(images_for(model, batched_inputs, self.input_format))
            for model in self.models
        ]
        features = [
            extract_features(model, of_model)[0]
            for model, of_model in zip(self.models, images, strict=True)
        ]
        return images, features

    def _detect_boxes(
        self,
        batched_inputs: list[dict],
        images: list[ImageList],
        features: list[dict[str, torch.Tensor]],
        soft_suppression: bool = True,
    ) -> list[Instances]:
        of_models = [
            propose(model, of_model, maps, batched_inputs)[0]
            for model, of_model, maps in zip(self.models, images, features, strict=True)
        ]
        proposals = [Instances.cat(of_image) for of_image in zip(*of_models, strict=True)]
        predictions = [
            _predict_boxes_and_scores(model.roi_heads, maps, proposals)
            for model, maps in zip(self.models, features, strict=True)
        ]
        heads = self.roi_heads
        boxes, scores = (
            zip(*of_models, strict=True) for of_models in zip(*predictions, strict=True)
        )
        boxes = [
            torch.stack(boxes_of_one_kind(of_image, heads.num_classes)).mean(dim=0)
            for of_image in boxes
        ]
        scores = [torch.stack(of_image).mean(dim=0) for of_image in scores]
        image_sizes = images[0].image_sizes
        if isinstance(heads, HTCROIHeads):
            return heads.select_boxes(boxes, scores, image_sizes, soft_suppression=soft_suppression)
        instances, _ = fast_rcnn_inference(
            boxes,
            scores,
            image_sizes,
            heads.box_predictor.test_score_thresh,
            heads.box_predictor.test_nms_thresh,
            heads.box_predictor.test_topk_per_image,
        )
        return instances

    def _add_masks(
        self, features: list[dict[str, torch.Tensor]], instances: list[Instances]
    ) -> None:
        """Add "pred_masks", (D, 1, M, M) probabilities averaged over the models.

        M is that of the first model's masks.
        """
        of_models = [
            predict_masks(model.roi_heads, maps, instances)
            for model, maps in zip(self.models, features, strict=True)
        ]
        for i, masks in zip(instances, zip(*of_models, strict=True), strict=True):
            i.pred_masks = torch.stack(masks_of_one_size(masks)).mean(dim=0)


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


def _predict_boxes_and_scores(
    heads: ROIHeads, features: dict[str, torch.Tensor], proposals: list[Instances]
) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
    """Return the boxes, (R, 4) or (R, 4 K), and probabilities, (R, K + 1), of each image."""
    if isinstance(heads, HTCROIHeads):
        return heads.predict_boxes_and_scores(features, proposals)
    maps = [features[f] for f in heads.box_in_features]
    x = heads.box_head(heads.box_pooler(maps, [p.proposal_boxes for p in proposals]))
    predictor = heads.box_predictor
    predictions = predictor(x)
    return predictor.predict_boxes(predictions, proposals), predictor.predict_probs(
        predictions, proposals
    )
