#!/usr/bin/env python
"""Record cascade_mask_rcnn_tiny_mmdet_training.pth: a training step of MMDetection.

Run in an environment with MMDetection 3.3.0. Two images with given proposals and random
weights go through its Cascade Mask R-CNN, whose samplers keep every candidate, so that nothing is
random. The file has the weights, the inputs, the losses, and the gradient of each parameter.

cascade_mask_rcnn_class_wise_tiny_mmdet_training.pth is the same step with boxes that are regressed
for each class. It has what differs: the weights of these layers, the losses, and the gradients of
the RoI heads.
"""

from pathlib import Path

import mmdet
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData

CONFIG = "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py"
FOLDER = Path(__file__).parent
OUTPUT = FOLDER / "cascade_mask_rcnn_tiny_mmdet_training.pth"
CLASS_WISE_OUTPUT = FOLDER / "cascade_mask_rcnn_class_wise_tiny_mmdet_training.pth"
HEIGHT, WIDTH = 160, 224


def build_model(class_wise: bool = False) -> torch.nn.Module:
    register_all_modules()
    model = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs" / CONFIG).model
    model.backbone.update(init_cfg=None, stem_channels=8, base_channels=4)
    model.neck.update(in_channels=[16, 32, 64, 128], out_channels=16)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    heads = model.roi_head
    for extractor in (heads.bbox_roi_extractor, heads.mask_roi_extractor):
        extractor.out_channels = 16
        extractor.roi_layer.use_torchvision = True
    for head in heads.bbox_head:
        head.update(in_channels=16, fc_out_channels=32, num_classes=5)
        head.update(reg_class_agnostic=not class_wise)
    heads.mask_head.update(in_channels=16, conv_out_channels=16, num_classes=5)
    for settings in model.train_cfg.rcnn:
        settings.sampler.update(num=10**6, pos_fraction=1.0)
    return MODELS.build(model)


def draw_weights(model: torch.nn.Module) -> None:
    """Draw weights under which scores and boxes differ between RoIs."""
    spread = {"fc_cls": 0.03, "fc_reg": 0.005, "conv_logits": 0.3}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            # Or the sums of 16 residual blocks would explode.
            torch.nn.init.constant_(module.weight, 0.25 if name.endswith("bn3") else 1.0)
        elif getattr(module, "weight", None) is not None:
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            for layer, deviation in spread.items():
                if name.endswith(layer):
                    torch.nn.init.normal_(module.weight, std=deviation)


def draw_image(num_instances: int) -> dict[str, torch.Tensor]:
    """Draw pixels, instances with elliptic masks, and proposals of which many overlap them."""
    size = torch.tensor([WIDTH, HEIGHT])
    centers = (0.25 + 0.5 * torch.rand(num_instances, 2)) * size
    halves = (0.1 + 0.15 * torch.rand(num_instances, 2)) * size
    boxes = torch.cat([centers - halves, centers + halves], dim=1)
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    distance = (
        (torch.stack([x, y], 2) + 0.5 - centers[:, None, None]) / halves[:, None, None]
    ) ** 2
    near = boxes.repeat(20, 1)
    near = near + 0.2 * (torch.rand_like(near) - 0.5) * halves.repeat(20, 2) * 2
    corners = torch.rand(40, 2) * size * 0.7
    far = torch.cat([corners, corners + 8 + torch.rand(40, 2) * size * 0.4], dim=1)
    proposals = torch.cat([near, far])
    proposals[:, 0::2] = proposals[:, 0::2].clamp(0, WIDTH)
    proposals[:, 1::2] = proposals[:, 1::2].clamp(0, HEIGHT)
    return {
        "image_bgr": torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8),
        "gt_boxes": boxes,
        "gt_classes": torch.randint(0, 5, (num_instances,)),
        "gt_masks": distance.sum(3) <= 1,
        "proposals": proposals,
    }


def as_sample(image: dict[str, torch.Tensor]) -> DetDataSample:
    shape = (HEIGHT, WIDTH)
    sample = DetDataSample(
        metainfo={"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0)}
    )
    sample.gt_instances = InstanceData(
        bboxes=image["gt_boxes"],
        labels=image["gt_classes"],
        masks=BitmapMasks(image["gt_masks"].numpy().astype("uint8"), HEIGHT, WIDTH),
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0).long())
    return sample


def train_step(
    model: torch.nn.Module, images: list[dict[str, torch.Tensor]]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the losses, and the gradients of all parameters that have one."""
    preprocess: DetDataPreprocessor = model.data_preprocessor
    samples = [as_sample(image) for image in images]
    data = preprocess({"inputs": [i["image_bgr"] for i in images], "data_samples": samples}, True)
    model.train()
    proposals = [InstanceData(bboxes=image["proposals"].clone()) for image in images]
    features = model.extract_feat(data["inputs"])
    losses = model.roi_head.loss(features, proposals, data["data_samples"])
    sum(value for name, value in losses.items() if "loss" in name).backward()
    print({name: round(value.item(), 4) for name, value in losses.items()})
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in losses.items()}, gradients


def record_class_wise(
    weights: dict[str, torch.Tensor], images: list[dict[str, torch.Tensor]]
) -> None:
    model = build_model(class_wise=True)
    draw_weights(model)
    own = {name: w for name, w in model.state_dict().items() if ".fc_reg." in name}
    model.load_state_dict({**weights, **own})
    losses, gradients = train_step(model, images)
    gradients = {name: g for name, g in gradients.items() if name.startswith("roi_head.")}
    torch.save({"state_dict": own, "losses": losses, "gradients": gradients}, CLASS_WISE_OUTPUT)


def main() -> None:
    torch.manual_seed(0)
    model = build_model()
    draw_weights(model)
    images = [draw_image(3), draw_image(2)]
    losses, gradients = train_step(model, images)
    torch.save(
        {
            "state_dict": model.state_dict(),
            "images": images,
            "losses": losses,
            "gradients": gradients,
            "meta": {"source": f"mmdet {mmdet.__version__} {CONFIG}, tiny; proposals given"},
        },
        OUTPUT,
    )
    record_class_wise(model.state_dict(), images)


if __name__ == "__main__":
    main()
