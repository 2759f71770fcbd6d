#!/usr/bin/env python
"""Record cascade_mask_rcnn_swin_tiny_mmdet.pth: inference of MMDetection with a Swin Transformer.

Run in an environment with MMDetection 3.3.0. The weights are random, under the names of
Swin-Transformer-Object-Detection, which is based on MMDetection 2.x; MMDetection 3's own
`swin_converter` translates them. Heads are those of its configs: 4conv1fc, class-wise boxes.
"""

import re
from pathlib import Path

import mmdet
import torch
from mmdet.models.backbones.swin import swin_converter
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import register_all_modules
from mmengine.config import Config

CONFIG = "cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py"
OUTPUT = Path(__file__).parent / "cascade_mask_rcnn_swin_tiny_mmdet.pth"
HEIGHT, WIDTH = 96, 128
NUM_MASKS = 4  # the detections whose masks are recorded
# MMDetection 3's name of a backbone's tensor -> that of the Swin Transformer's authors.
TO_ORIGINAL = {
    r"^patch_embed\.projection": "patch_embed.proj",
    r"^stages": "layers",
    r"attn\.w_msa": "attn",
    r"ffn\.layers\.0\.0": "mlp.fc1",
    r"ffn\.layers\.1": "mlp.fc2",
}


def build_model() -> torch.nn.Module:
    register_all_modules()
    model = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs" / CONFIG).model
    model.backbone = dict(
        type="SwinTransformer",
        embed_dims=8,
        depths=(1, 2, 1, 1),
        num_heads=(1, 2, 2, 4),
        window_size=4,
    )
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=12)
    model.rpn_head.update(in_channels=12, feat_channels=12)
    heads = model.roi_head
    for extractor in (heads.bbox_roi_extractor, heads.mask_roi_extractor):
        extractor.out_channels = 12
        extractor.roi_layer.use_torchvision = True
    for head in heads.bbox_head:
        head.pop("loss_bbox")
        head.update(
            type="ConvFCBBoxHead",
            num_shared_convs=4,
            num_shared_fcs=1,
            in_channels=12,
            conv_out_channels=12,
            fc_out_channels=16,
            num_classes=5,
            reg_class_agnostic=False,
            reg_decoded_bbox=True,
            norm_cfg=dict(type="BN"),
            loss_bbox=dict(type="GIoULoss", loss_weight=10.0),
        )
    heads.mask_head.update(in_channels=12, conv_out_channels=6, num_classes=5)
    model.test_cfg.rpn.max_per_img = 150
    return MODELS.build(model)


def draw_weights(model: torch.nn.Module) -> None:
    """Draw weights under which scores and boxes differ between RoIs."""
    spread = {"fc_cls": 0.3, "fc_reg": 0.5, "conv_logits": 0.3, "rpn_reg": 0.05}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
        elif isinstance(module, torch.nn.LayerNorm):
            torch.nn.init.uniform_(weight, 0.5, 1.5)
        elif weight is not None:
            torch.nn.init.kaiming_normal_(weight, nonlinearity="relu")
        if getattr(module, "bias", None) is not None:
            torch.nn.init.normal_(module.bias, std=0.1)
        if hasattr(module, "relative_position_bias_table"):
            torch.nn.init.normal_(module.relative_position_bias_table)
        for layer, deviation in spread.items():
            if name.endswith(layer):
                torch.nn.init.normal_(weight, std=deviation)


def to_original(name: str) -> str:
    for pattern, replacement in TO_ORIGINAL.items():
        name = re.sub(pattern, replacement, name)
    return name


def load_original_names(backbone: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Let MMDetection translate the weights from the authors' names, and return them under those.

    What was drawn for a tensor of MMDetection is taken for the authors' tensor of this name.
    """
    original = {to_original(name): x.clone() for name, x in backbone.state_dict().items()}
    theirs = swin_converter(original)
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in theirs.items()})
    return {f"backbone.{name}": tensor for name, tensor in original.items()}


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    model = build_model().eval()
    draw_weights(model)
    original = load_original_names(model.backbone)
    theirs = model.state_dict()
    heads = {name: x for name, x in theirs.items() if not name.startswith("backbone.")}
    image = torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8)
    shape = (HEIGHT, WIDTH)
    meta = {"img_shape": shape, "ori_shape": shape, "scale_factor": (1.0, 1.0), "img_id": 0}
    sample = DetDataSample(metainfo=meta)
    data = model.data_preprocessor({"inputs": [image], "data_samples": [sample]}, False)
    features = model.extract_feat(data["inputs"])
    objectness, anchor_deltas = model.rpn_head(features)
    (proposals,) = model.rpn_head.predict(features, data["data_samples"], rescale=False)
    rois, stages = bbox2roi([proposals.bboxes]), []
    for stage in range(3):
        result = model.roi_head._bbox_forward(stage, features, rois)
        stages.append(
            {
                "input_boxes": rois[:, 1:].clone(),
                "cls_logits": result["cls_score"],
                "box_deltas": result["bbox_pred"],
            }
        )
        # The class of the best score without the background, whose deltas move the box.
        labels = result["cls_score"][:, :-1].argmax(dim=1)
        head = model.roi_head.bbox_head[stage]
        boxes = head.regress_by_class(rois[:, 1:], labels, result["bbox_pred"], meta)
        rois = bbox2roi([boxes])
        stages[-1]["output_boxes"] = rois[:, 1:].clone()
    (found,) = model.roi_head.predict(features, [proposals], data["data_samples"], rescale=False)
    rois = bbox2roi([found.bboxes[:NUM_MASKS]])
    masks = sum(
        model.roi_head._mask_forward(stage, features, rois)["mask_preds"].sigmoid() / 3
        for stage in range(3)
    )
    torch.save(
        {
            "state_dict": {**original, **heads},
            # MMDetection 3's names of the backbone's tensors, and those with other values.
            "names_of_version_3": {
                name: f"backbone.{to_original(name.removeprefix('backbone.'))}"
                for name in theirs
                if name.startswith("backbone.")
            },
            "tensors_of_version_3": {
                name: tensor for name, tensor in theirs.items() if ".downsample." in name
            },
            "outputs": {
                "image_bgr": image,
                "fpn": list(features),
                "objectness": list(objectness),
                "anchor_deltas": list(anchor_deltas),
                "proposal_boxes": proposals.bboxes,
                "proposal_scores": proposals.scores,
                "box_stages": stages,
                "mmdet_det_boxes": found.bboxes,
                "mmdet_det_scores": found.scores,
                "mmdet_det_labels": found.labels,
                "mask_probs_of_label": masks[range(len(masks)), found.labels[:NUM_MASKS]],
            },
            "meta": {"source": f"mmdet {mmdet.__version__} {CONFIG}, tiny, with Swin's heads"},
        },
        OUTPUT,
    )
    moved = [(s["output_boxes"] - s["input_boxes"]).abs().mean().item() for s in stages]
    best = [s["cls_logits"].argmax(1).bincount().tolist() for s in stages]
    print(len(proposals), len(found), moved, best, OUTPUT.stat().st_size)


if __name__ == "__main__":
    main()
