"""SSD (arXiv 1512.02325), a single-shot detector: torchvision's model as one of Detectron2.

Shapes: R default boxes, D detections and G ground-truth instances of an image; K classes without
the background; images of H x W pixels.
"""

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.models.detection import ssd as torchvision_ssd
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from ..layers.resizing import resize_bilinear

# In pixels. torchvision raises an error for a box that becomes empty by rounding when the image is
# resized, so smaller ones are left out.
MIN_BOX_SIDE = 0.01


class DefaultBoxes(DefaultBoxGenerator):
    """torchvision's default boxes, which stay float32 in mixed precision.

    torchvision computes them in the type of the features. In float16, their error reaches 0.25
    pixels.
    """

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return for each image its R default boxes, (R, 4) in pixels."""
        return super().forward(image_list, [x.float() for x in feature_maps])


class SquareTransform(GeneralizedRCNNTransform):
    """torchvision's transform to a square, which a graph of ONNX does as PyTorch does."""

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return an image (3, H, W) resized to the square, and its ground truth."""
        if not torch.onnx.is_in_onnx_export():
            return super().resize(image, target)
        return resize_bilinear(image[None], self.fixed_size)[0], target


@META_ARCH_REGISTRY.register()
class SSD(torchvision_ssd.SSD):
    """torchvision's SSD with Detectron2's inputs and outputs; parameters keep torchvision's names.

    The model resizes images to a square with torchvision's bilinear filter, without keeping the
    aspect ratio, as in the paper. Data loaders should not resize them.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        anchor_generator: DefaultBoxes,
        image_size: int,
        num_classes: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str = "RGB",
        iou_thresh: float = 0.5,
        positive_fraction: float = 0.25,
        score_thresh: float = 0.01,
        topk_candidates: int = 400,
        nms_thresh: float = 0.45,
        detections_per_img: int = 200,
    ):
        """
        Args:
            backbone: the backbone. Each map that it returns gets predictors.
            anchor_generator: the default boxes of each map.
            image_size: the side of the square that images are resized to, in pixels.
            num_classes: K.
            pixel_mean, pixel_std: mean and standard deviation of each channel, for values 0 to 255.
            input_format: "RGB" or "BGR", the order of the channels.
            iou_thresh: a default box is positive if its IoU with a ground-truth box is at least
                this, or if no other default box overlaps that ground-truth box more.
            positive_fraction: the fraction of positive default boxes among those of an image that
                the class loss is computed for. The others are the negatives with the highest loss
                (Sec. 2.2, "hard negative mining"; 1/4 means three negatives for each positive).
            score_thresh: the lowest score of a detection.
            topk_candidates: the most detections of a class before NMS.
            nms_thresh: the IoU above which NMS removes a detection of the same class.
            detections_per_img: the most detections of an image after NMS.

        Raises:
            ValueError: if `anchor_generator` is for another number of maps than the backbone has.
        """
        shapes = backbone.output_shape()
        ratios = anchor_generator.aspect_ratios
        if len(shapes) != len(ratios):
            raise ValueError(
                f"The backbone has {len(shapes)} maps ({', '.join(shapes)}), but "
                f"anchor_generator.aspect_ratios (MODEL.SSD.ASPECT_RATIOS) are for {len(ratios)}"
            )
        super().__init__(
            backbone,
            anchor_generator,
            (image_size, image_size),
            num_classes + 1,
            image_mean=list(pixel_mean),
            image_std=list(pixel_std),
            head=torchvision_ssd.SSDHead(
                [shape.channels for shape in shapes.values()],
                anchor_generator.num_anchors_per_location(),
                num_classes + 1,
            ),
            score_thresh=score_thresh,
            nms_thresh=nms_thresh,
            detections_per_img=detections_per_img,
            iou_thresh=iou_thresh,
            topk_candidates=topk_candidates,
            positive_fraction=positive_fraction,
        )
        self.transform = SquareTransform(
            image_size,
            image_size,
            list(pixel_mean),
            list(pixel_std),
            size_divisible=1,
            fixed_size=(image_size, image_size),
        )
        self.num_classes = num_classes
        self.input_format = input_format
        for name, value in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(list(value)).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg):
        ssd = cfg.MODEL.SSD
        return {
            "backbone": build_backbone(cfg),
            "anchor_generator": DefaultBoxes(ssd.ASPECT_RATIOS, scales=ssd.SCALES, steps=ssd.STEPS),
            "image_size": ssd.IMAGE_SIZE,
            "num_classes": ssd.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "input_format": cfg.INPUT.FORMAT,
            "iou_thresh": ssd.IOU_THRESHOLD,
            "positive_fraction": ssd.POSITIVE_FRACTION,
            "score_thresh": ssd.SCORE_THRESH_TEST,
            "topk_candidates": ssd.TOPK_CANDIDATES_TEST,
            "nms_thresh": ssd.NMS_THRESH_TEST,
            "detections_per_img": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Return losses in training, detections otherwise.

        Args:
            batched_inputs: a dict for each image with "image", (3, H, W) with values 0 to 255. In
                training also "instances" with gt_boxes (G, 4), in pixels of this image, and
                gt_classes (G,), 0 to K - 1. At inference, "height" and "width" give the size of
                the output; without them it is H x W.

        Returns:
            In training, {"loss_cls": …, "loss_box_reg": …}, each a sum divided by the number of
            positive default boxes. If no image has a box, both are 0, and so are their gradients.
            At inference, [{"instances": Instances}, …] with pred_boxes (D, 4), scores (D,) and
            pred_classes (D,).
        """
        images = [x["image"].to(self.device).float() for x in batched_inputs]
        if self.training:
            targets = [self._to_target(x["instances"]) for x in batched_inputs]
            losses = super().forward(images, targets)
            return {"loss_cls": losses["classification"], "loss_box_reg": losses["bbox_regression"]}
        results = []
        for image, x, found in zip(images, batched_inputs, super().forward(images), strict=True):
            height, width = image.shape[-2:]
            instances = Instances(
                (height, width),
                pred_boxes=Boxes(found["boxes"]),
                scores=found["scores"],
                pred_classes=found["labels"] - 1,
            )
            size = x.get("height", height), x.get("width", width)
            results.append({"instances": detector_postprocess(instances, *size)})
        return results

    def _to_target(self, instances: Instances) -> dict[str, Tensor]:
        instances = instances[instances.gt_boxes.nonempty(MIN_BOX_SIDE)].to(self.device)
        # Class 0 of torchvision is the background.
        return {"boxes": instances.gt_boxes.tensor, "labels": instances.gt_classes + 1}
