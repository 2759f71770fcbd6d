"""A two-stage detector of Detectron2's classes, as benchmarks run it.

`MMDetModel` (mmdet_model.py) has the same methods. Images are those of model_inputs.py.
"""

from __future__ import annotations

import contextlib

import torch
from standardized_weights import standardize_weights
from timing import BACKBONE, BOXES, MASKS, PASTE, RPN, SEMANTIC, Parts


class Detectron2Model:
    """A model of this project, or Detectron2's own Cascade Mask R-CNN.

    Attributes:
        model: a `GeneralizedRCNN`.
    """

    def __init__(self, model: torch.nn.Module, config: object = None):
        """
        Args:
            model: a `GeneralizedRCNN`.
            config: of a model of this project.
        """
        self.model = model
        self.config = config
        self.autocast = contextlib.nullcontext()

    @classmethod
    def of_config(
        cls,
        config: str,
        settings: list[str],
        weights: str | None = None,
        device: str = "cpu",
        one_mask_head: bool = False,
    ) -> Detectron2Model:
        """Build a LazyConfig of this project.

        Args:
            config: its file.
            settings: overrides, "key=value".
            weights: a checkpoint; the initial weights, of seed 0, if None.
            device: "cpu" or "cuda".
            one_mask_head: keep only the mask branch of the last stage.
        """
        from hybrid_cascade.engine import build_model, load_config, load_weights

        torch.manual_seed(0)
        config = load_config(config, [*settings, f"train.device={device}"])
        if one_mask_head:
            heads = config.model.roi_heads
            heads.update(mask_stages="last", mask_heads=heads.mask_heads[:1])
        model = build_model(config)
        if weights:
            load_weights(model, weights)
        return cls(model, config)

    @classmethod
    def detectron2_cascade(cls, weights: str, device: str) -> Detectron2Model:
        """Build Detectron2's Cascade Mask R-CNN: its model_zoo's, on the backbone of the others.

        That is torchvision's ResNet, RGB images, two frozen stages as in Detectron2's own configs.
        """
        from detectron2.config import instantiate
        from detectron2.model_zoo import get_config

        config = get_config("common/models/cascade_rcnn.py").model
        constants = get_config("common/data/constants.py").constants
        config.backbone.bottom_up.stages.stride_in_1x1 = False
        config.backbone.bottom_up.freeze_at = 2
        config.pixel_mean = constants.imagenet_rgb256_mean
        config.pixel_std = constants.imagenet_rgb256_std
        config.input_format = "RGB"
        model = instantiate(config).eval()
        model.load_state_dict(torch.load(weights, weights_only=True)["model"])
        return cls(model.to(device))

    def standardize_weights(self, images: list[dict]) -> None:
        """Draw weights under which every layer matters for these images."""
        standardize_weights(self.model, lambda: self.model(self.inputs(images)))

    @property
    def roi_heads(self) -> torch.nn.Module:
        return self.model.roi_heads

    def prepare_inference(self) -> None:
        """Let a model of this project infer as its config says; it can't be trained then."""
        if self.config is not None:
            from hybrid_cascade.engine import inference_autocast, prepare_inference

            self.model = prepare_inference(self.config, self.model)
            self.autocast = inference_autocast(self.config)

    def save(self, path: str) -> None:
        """Write a checkpoint."""
        torch.save({"model": self.model.state_dict()}, path)

    def inputs(self, images: list[dict]) -> list[dict]:
        """Return what the model takes, with ground truth if it is in training mode."""
        from detectron2.structures import Boxes, Instances, PolygonMasks

        inputs = []
        for image in images:
            one = {key: image[key] for key in ("image", "height", "width")}
            if self.model.training:
                one["sem_seg"] = image["sem_seg"]
                one["instances"] = Instances(
                    tuple(image["image"].shape[-2:]),
                    gt_boxes=Boxes(image["boxes"]),
                    gt_classes=image["classes"],
                    gt_masks=PolygonMasks(
                        [[p.numpy() for p in polygons] for polygons in image["polygons"]]
                    ),
                )
            inputs.append(one)
        return inputs

    def detect(self, inputs: list[dict]) -> list:
        """Return the instances of each image, at its original size."""
        with self.autocast:
            return [output["instances"] for output in self.model(inputs)]

    def losses(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        """Return the losses of a batch, by name."""
        from detectron2.utils.events import EventStorage

        with EventStorage():
            return self.model(inputs)

    @staticmethod
    def fields(instances) -> dict[str, torch.Tensor]:
        """Return "boxes" (D, 4), "scores", "labels" (D,) and "masks" (D, H, W) of instances."""
        return {
            "boxes": instances.pred_boxes.tensor,
            "scores": instances.scores,
            "labels": instances.pred_classes,
            "masks": instances.pred_masks,
        }

    def watch(self, parts: Parts) -> None:
        """Say which methods the parts are."""
        from detectron2.modeling import GeneralizedRCNN

        from hybrid_cascade.modeling import HTCROIHeads

        model = self.model
        parts.watch(BACKBONE, model.backbone, "forward")
        parts.watch(RPN, model.proposal_generator, "forward")
        parts.watch(BOXES, self.roi_heads, "forward")
        parts.watch(MASKS, self.roi_heads, "_forward_mask")
        parts.watch(PASTE, GeneralizedRCNN, "_postprocess")
        if hasattr(model, "semantic_branch"):
            parts.watch(SEMANTIC, model.semantic_branch, "forward")
            parts.watch(SEMANTIC, model, "semantic_targets")
        if isinstance(self.roi_heads, HTCROIHeads):
            parts.watch(MASKS, self.roi_heads, "_mask_loss")

    def set_proposals(self, number: int) -> None:
        """Let the RPN propose at most this many boxes for an image."""
        rpn = self.model.proposal_generator
        rpn.pre_nms_topk = rpn.post_nms_topk = {True: number, False: number}

    def set_detections(self, number: int) -> None:
        """Let the model detect at most this many instances in an image."""
        for predictor in self.roi_heads.box_predictor:
            predictor.test_topk_per_image = number

    def set_stages(self, number: int) -> None:
        """Let inference run this many stages of the cascade."""
        if hasattr(self.roi_heads, "test_stages"):
            self.roi_heads.test_stages = number
        else:
            self.roi_heads.num_cascade_stages = number
