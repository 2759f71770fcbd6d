"""R-CNN models with detections to compare, without a training."""

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.model_zoo import get_config
from detectron2.modeling.backbone import BottleneckBlock, ResNet
from detectron2.modeling.roi_heads import CascadeROIHeads
from detectron2.structures import Boxes, Instances

from hybrid_cascade import use_htc_heads


def layers_of_all_stages(heads):
    """Return the last layers for classes, boxes and masks: three lists over the stages."""
    predictors = heads.box_predictor
    predictors = list(predictors) if isinstance(predictors, torch.nn.ModuleList) else [predictors]
    masks = []
    if heads.mask_on:
        masks = heads.mask_head
        masks = list(masks) if isinstance(masks, torch.nn.ModuleList) else [masks]
    return (
        [p.cls_score for p in predictors],
        [p.bbox_pred for p in predictors],
        [m.predictor for m in masks],
    )


def detectron2s_cascade(tiny_config):
    """Configure Detectron2's `CascadeROIHeads` with one mask head."""
    config = tiny_config("mask_rcnn_toy")
    use_htc_heads(config)
    heads = config.roi_heads
    ours = ("stages", "interleaved", "information_flow", "semantic_fusion", "stage_loss_weights")
    for key in [key for key in heads if key.removeprefix("mask_") in ours]:
        heads.pop(key)
    heads._target_ = CascadeROIHeads
    heads.mask_head = heads.pop("mask_heads")[0]
    heads.mask_head.num_classes = "${..num_classes}"
    return config


def detectron2s_res5(tiny_config):
    """Configure Mask R-CNN-C4, with Detectron2's `Res5ROIHeads` and an eighth of the channels."""
    config = get_config("common/models/mask_rcnn_c4.py").model
    stages = config.backbone.stages
    config.backbone.stages = [
        L(ResNet.make_stage)(
            block_class=BottleneckBlock,
            num_blocks=2,
            stride_per_block=[1 + (stage > 0), 1],
            in_channels=[8, 32, 64][stage],
            bottleneck_channels=8 * 2**stage,
            out_channels=32 * 2**stage,
            norm=stages.norm,
            stride_in_1x1=stages.stride_in_1x1,
        )
        for stage in range(3)
    ]
    config.backbone.stem.out_channels = 8
    config.proposal_generator.head.in_channels = 128
    heads = config.roi_heads
    heads.num_classes = 5
    heads.res5.update(in_channels=128, bottleneck_channels=64, out_channels=256)
    heads.box_predictor.input_shape = ShapeSpec(channels=256, height=1, width=1)
    heads.box_predictor.num_classes = heads.mask_head.num_classes = 5
    heads.mask_head.input_shape = ShapeSpec(channels=256, width=7, height=7)
    return config


def load_rcnn(name, tiny_config):
    """Load a model's config by the name of a quick-start config, or of Detectron2's ROI heads."""
    own = {"CascadeROIHeads": detectron2s_cascade, "Res5ROIHeads": detectron2s_res5}
    return own[name](tiny_config) if name in own else tiny_config(name)


def spread_outputs(model):
    """Draw last layers whose outputs have mean 0 and a given largest value, for random pixels.

    Unlike in benchmarks/standardized_weights.py all other layers keep their initial weights: images
    of tests are so small that a channel of the coarsest map has two values.
    """
    handles = []
    kinds = layers_of_all_stages(model.roi_heads)
    for layers, largest in zip(kinds, (4.0, 1.0, 4.0), strict=True):  # classes, boxes, masks
        for layer in layers:

            def scale(layer, _inputs, output, largest=largest):
                mean = output.mean(dim=[d for d in range(output.dim()) if d != 1])
                output = output - mean.reshape(-1, *[1] * (output.dim() - 2))
                factor = largest / output.abs().max()
                layer.weight.data *= factor
                layer.bias.data = -mean * factor
                return output * factor

            torch.nn.init.normal_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
            handles.append(layer.register_forward_hook(scale))
    with torch.no_grad():
        model([{"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)}])
    for handle in handles:
        handle.remove()


@pytest.fixture
def make_lively_rcnn(tiny_config):
    """Builds models whose scores, boxes and masks differ between RoIs and seeds.

    Masks are neither 0 nor 1.
    """

    def make(name="htc_toy", seed=1, masks=True, **switches):
        config = load_rcnn(name, tiny_config)
        heads = config.roi_heads
        heads.update(switches)
        config.proposal_generator.post_nms_topk = (30, 30)
        for predictor in heads.get("box_predictors") or [heads.box_predictor]:
            predictor.test_topk_per_image = 8
        if not masks:
            for key in ("mask_in_features", "mask_heads", "mask_head", "mask_pooler"):
                heads.pop(key, None)
        torch.manual_seed(seed)
        model = instantiate(config).eval()
        spread_outputs(model)
        return model

    return make


@pytest.fixture
def make_constant_rcnn(tiny_config):
    """Builds models whose proposals are `boxes`, all with the same score, shift and mask."""

    def make(name, boxes, score, shift=0.0, mask_probability=0.5):
        model = instantiate(load_rcnn(name, tiny_config)).eval()
        model.proposal_generator = FixedProposals(boxes)
        class_layers, box_layers, mask_layers = layers_of_all_stages(model.roi_heads)
        for layer in class_layers + box_layers + mask_layers:
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        for layer in class_layers:  # 5 classes and the background
            layer.bias.data = torch.tensor([score, *[1e-4] * 4, 1 - score - 4e-4]).log()
        for layer in box_layers:
            layer.bias.data[::4] = shift
        for layer in mask_layers:
            torch.nn.init.constant_(layer.bias, torch.tensor(mask_probability).logit())
        return model

    return make


class FixedProposals(torch.nn.Module):
    def __init__(self, boxes):
        super().__init__()
        self.boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)

    def forward(self, images, features, gt_instances=None):
        logits = torch.zeros(len(self.boxes))
        return [
            Instances(s, proposal_boxes=Boxes(self.boxes.clone()), objectness_logits=logits)
            for s in images.image_sizes
        ], {}
