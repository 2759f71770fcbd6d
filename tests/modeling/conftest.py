"""R-CNN models whose detections are worth comparing, without a training."""

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Boxes, Instances


def layers_of_all_stages(heads):
    """The last layers for (classes, boxes, masks), a list over the stages each."""
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


@pytest.fixture
def make_lively_rcnn(tiny_config):
    """Scores, boxes and masks differ between boxes and seeds, and masks are not 0 or 1."""

    def make(name="htc_toy", seed=1, masks=True, **switches):
        config = tiny_config(name)
        config.roi_heads.update(switches)
        config.proposal_generator.post_nms_topk = (30, 30)
        heads = config.roi_heads
        for predictor in heads.get("box_predictors") or [heads.box_predictor]:
            predictor.test_topk_per_image = 8
        if not masks:
            config.roi_heads.mask_in_features = None
            config.roi_heads.pop("mask_heads", None)
            config.roi_heads.pop("mask_head", None)
            config.roi_heads.pop("mask_pooler", None)
        torch.manual_seed(seed)
        model = instantiate(config).eval()
        handles = []
        kinds = layers_of_all_stages(model.roi_heads)
        for layers, largest in zip(kinds, (4.0, 1.0, 4.0), strict=True):
            for layer in layers:

                def scale(layer, _inputs, output, largest=largest):
                    channels = [d for d in range(output.dim()) if d != 1]
                    mean = output.mean(dim=channels)
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
        return model

    return make


@pytest.fixture
def make_constant_rcnn(tiny_config):
    """Finds its `boxes`, moved and scored and masked alike wherever they are."""

    def make(name, boxes, score, shift=0.0, mask_probability=0.5):
        model = instantiate(tiny_config(name)).eval()
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
