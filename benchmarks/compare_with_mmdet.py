#!/usr/bin/env python
"""Compare this project's HTC with MMDetection's: the same weights, the same photographs.

The two need different environments, so the comparison has two steps and a folder between them:

    # with MMDetection 3.3.0, mmcv 2.x and mmengine
    python benchmarks/compare_with_mmdet.py reference --output DIR --images a.jpg b.jpg c.jpg
    # here
    python benchmarks/compare_with_mmdet.py compare --reference DIR \\
        --json benchmarks/results/compare_with_mmdet.json

`reference` builds the published config htc/htc_r50_fpn_1x_coco.py with random weights, saves them
as an MMDetection checkpoint, and records what MMDetection finds in each photograph. `compare`
converts the checkpoint with tools/convert_checkpoint.py, runs our config on the same resized pixels
(the two projects resize with different filters, which is no matter of the model) and reports
differences.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
MMDET_CONFIG = "htc/htc_r50_fpn_1x_coco.py"
OUR_CONFIG = "configs/htc/htc_r50_fpn_1x.py"
CHECKPOINT = "mmdet.pth"
# Deviation of what the last layers put out, 1 elsewhere.
SPREAD = {"rpn_cls": 2.0, "rpn_reg": 0.3, "fc_cls": 1.5, "fc_reg": 0.7, "conv_logits": 2.0}


def reference(args: argparse.Namespace) -> None:
    """Run MMDetection; writes DIR/mmdet.pth and DIR/<photograph>.pth."""
    import mmcv

    mmcv.__version__ = min(mmcv.__version__, "2.1.0")  # mmdet 3.3.0 asks for < 2.2.0; 2.2.0 works
    import cv2
    import mmdet
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.runner import save_checkpoint

    register_all_modules()
    config_root = Path(mmdet.__file__).parent / ".mim/configs"
    config = Config.fromfile(config_root / MMDET_CONFIG)
    config.model.backbone.init_cfg = None
    torch.manual_seed(args.seed)
    model = MODELS.build(config.model).eval()

    def load(path: str) -> dict:
        """As the test pipeline of the config: LoadImageFromFile, Resize((1333, 800)), Pack."""
        original = mmcv.imread(path)
        image, scale = mmcv.imrescale(original, (1333, args.short_edge), return_scale=True)
        height, width = original.shape[:2]
        sample = DetDataSample(
            metainfo={
                "img_shape": image.shape[:2],
                "ori_shape": (height, width),
                "scale_factor": (image.shape[1] / width, image.shape[0] / height),
            }
        )
        tensor = torch.from_numpy(image.transpose(2, 0, 1).copy())
        return model.data_preprocessor({"inputs": [tensor], "data_samples": [sample]}), tensor

    make_lively(model, load(args.images[0])[0])
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        {"meta": {"mmdet_version": mmdet.__version__}, "state_dict": model.state_dict()},
        str(output / CHECKPOINT),
    )

    recorded = {}
    record_results(model.rpn_head, "predict", recorded)
    record_results(model.roi_head, "predict_bbox", recorded)
    stage_logits = []
    for head in model.roi_head.mask_head:
        head.register_forward_hook(lambda _m, _i, out: stage_logits.append(out[0]))
    for path in args.images:
        data, pixels = load(path)
        stage_logits.clear()
        with torch.no_grad():
            (result,) = model.predict(data["inputs"], data["data_samples"], rescale=True)
        found = result.pred_instances
        (proposals,), (in_resized,) = recorded["predict"], recorded["predict_bbox"]
        probabilities = torch.stack([x.sigmoid() for x in stage_logits])
        averaged = probabilities.mean(dim=0)
        pasted = model.roi_head.mask_head[-1]._predict_by_feat_single(
            averaged,
            in_resized["bboxes"].clone(),
            found.labels,
            result.metainfo,
            model.roi_head.test_cfg,
            rescale=True,
            activate_map=True,
        )
        rows = torch.arange(len(found))
        torch.save(
            {
                "pixels": pixels,  # BGR, uint8
                "original_size": result.ori_shape,
                "proposals": proposals["bboxes"],
                "objectness": proposals["scores"],
                "boxes": found.bboxes,
                "scores": found.scores,
                "labels": found.labels,
                "stage_masks": probabilities[:, rows, found.labels],
                "last_stage_bitmasks": torch.from_numpy(np.packbits(found.masks.numpy(), axis=-1)),
                "averaged_bitmasks": torch.from_numpy(np.packbits(pasted.numpy(), axis=-1)),
                "environment": f"mmdet {mmdet.__version__}, torch {torch.__version__}",
            },
            output / (Path(path).stem + ".pth"),
        )
        print(f"{path}: {len(found)} instances, OpenCV {cv2.__version__}")


def make_lively(model: torch.nn.Module, data: dict) -> None:
    """Draw weights under which every layer matters, as the default initialization's do not.

    In one pass over an image the output channels of each layer get mean 0 and the deviation that
    `SPREAD` says, by weight and bias: classes, scores, boxes and masks then differ between places.
    """
    handles = []

    def standardize(module, _inputs, output):
        if module in standardized:  # the RPN head runs on every level
            return None
        standardized.add(module)
        target = next((s for end, s in SPREAD.items() if name_of[module].endswith(end)), 1.0)
        dims = [d for d in range(output.dim()) if d != 1]
        scale = target / output.std(dims).clamp(min=1e-3)
        shift = -output.mean(dims) * scale
        out_dim = 1 if isinstance(module, torch.nn.ConvTranspose2d) else 0
        shape = [-1 if d == out_dim else 1 for d in range(module.weight.dim())]
        module.weight.data *= scale.view(shape)
        module.bias.data = module.bias * scale + shift
        shape = [-1 if d == 1 else 1 for d in range(output.dim())]
        return output * scale.view(shape) + shift.view(shape)

    standardized = set()
    name_of = {module: name for name, module in model.named_modules()}
    for module in name_of:
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            handles.append(module.register_forward_hook(standardize))
        elif getattr(module, "weight", None) is not None:
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                handles.append(module.register_forward_hook(standardize))
    with torch.no_grad():
        model.predict(data["inputs"], data["data_samples"])
    for handle in handles:
        handle.remove()


def record_results(owner: object, method: str, recorded: dict) -> None:
    """Keep the last result of a method: per image a dict of the tensors at that moment."""
    original = getattr(owner, method)

    def recording(*args, **kwargs):
        results = original(*args, **kwargs)
        recorded[method] = [
            {key: value.clone() for key, value in instances.items()} for instances in results
        ]
        return results

    setattr(owner, method, recording)


def compare(args: argparse.Namespace) -> None:
    """Convert DIR/mmdet.pth, run our config on the recorded pixels, write the differences."""
    from hybrid_cascade.checkpoint import MMDET
    from hybrid_cascade.engine import build_model, load_config, load_weights

    folder = Path(args.reference)
    converted = folder / "converted.pth"
    convert = ["--from", "mmdet", str(folder / CHECKPOINT), str(converted)]
    convert += ["--config-file", str(ROOT / OUR_CONFIG)]
    subprocess.run(
        [sys.executable, str(ROOT / "tools/convert_checkpoint.py"), *convert], check=True
    )
    # The averaged masks are compared first, so this setting is changed below.
    settings = [x for x in shlex.split(MMDET.lazy_settings) if "average_masks" not in x]
    model = build_model(load_config(str(ROOT / OUR_CONFIG), settings))
    load_weights(model, str(converted))

    photographs = {}
    for path in sorted(set(folder.glob("*.pth")) - {converted, folder / CHECKPOINT}):
        theirs = torch.load(path, weights_only=True)
        photographs[path.stem] = report = compare_photograph(model, theirs)
        print(path.stem, json.dumps(report, indent=2))
    results = {
        "command": "benchmarks/compare_with_mmdet.py (reference, then compare)",
        "models": {"mmdet": MMDET_CONFIG, "ours": OUR_CONFIG, "our settings": settings},
        "environment": {
            "mmdet": theirs["environment"],
            "detectron2": detectron2_version(),
            **provenance(),
        },
        "photographs": photographs,
    }
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n")


def compare_photograph(model: torch.nn.Module, theirs: dict) -> dict:
    """What MMDetection recorded for a photograph against what our model finds in its pixels."""
    from detectron2.structures import Boxes, Instances

    height, width = theirs["original_size"]
    inputs = {"image": theirs["pixels"].flip(0), "height": height, "width": width}  # BGR to RGB
    size = tuple(inputs["image"].shape[-2:])
    proposals = []
    handle = model.proposal_generator.register_forward_hook(
        lambda _m, _i, outputs: proposals.append(outputs[0][0])
    )
    averaged, averaged_masks = detect(model, inputs)
    handle.remove()

    their_proposals = Instances(size)
    their_proposals.proposal_boxes = Boxes(theirs["proposals"])
    their_proposals.objectness_logits = theirs["objectness"].logit()
    rpn, model.proposal_generator = model.proposal_generator, None
    same_start, _ = detect(model, {**inputs, "proposals": their_proposals})
    model.proposal_generator = rpn
    model.roi_heads.average_masks = False
    last, last_masks = detect(model, inputs)
    model.roi_heads.average_masks = True

    kept, found = match(theirs, averaged)
    boxes, scores = averaged.pred_boxes.tensor, averaged.scores
    summary = {
        "image_size": size,
        "proposals": {
            "theirs": len(theirs["proposals"]),
            "also_ours_within_0.01_px": nearest(
                theirs["proposals"], proposals[0].proposal_boxes.tensor
            ),
        },
        "detections": {
            "theirs": len(theirs["boxes"]),
            "same_within_0.01_px_and_1e-4": len(kept),
            "same_from_their_proposals": len(match(theirs, same_start)[0]),
            "max_box_difference_px": (boxes[found] - theirs["boxes"][kept]).abs().max().item(),
            "max_score_difference": (scores[found] - theirs["scores"][kept]).abs().max().item(),
        },
    }
    their_masks = {
        "averaged": theirs["stage_masks"].mean(dim=0),
        "last_stage": theirs["stage_masks"][-1],
    }
    for name, ours, masks in [
        ("averaged", averaged, averaged_masks),
        ("last_stage", last, last_masks),
    ]:
        packed = theirs[f"{name}_bitmasks"].numpy()
        their_bitmasks = torch.from_numpy(np.unpackbits(packed, axis=-1, count=width)).bool()
        difference = (masks[found] - their_masks[name][kept]).abs().max().item()
        pixels = (ours.pred_masks[found] ^ their_bitmasks[kept]).sum().item()
        summary[f"{name}_masks"] = {
            "max_probability_difference": difference,
            "different_pixels": pixels,
            "pixels_of_all_masks": their_bitmasks[kept].sum().item(),
        }
    return summary


def detect(model: torch.nn.Module, inputs: dict) -> tuple:
    """The instances of an image at its original size, and their masks (R, 28, 28) as predicted."""
    from detectron2.modeling.postprocessing import detector_postprocess

    with torch.no_grad():
        (instances,) = model.inference([inputs], do_postprocess=False)
        masks = instances.pred_masks[:, 0]
        return detector_postprocess(instances, inputs["height"], inputs["width"]), masks


def match(theirs: dict, ours) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of their and our instances that are the same: class, box in 0.01 px, score in 1e-4."""
    distance = (theirs["boxes"][:, None] - ours.pred_boxes.tensor).abs().amax(dim=2)
    same = (
        (distance < 1e-2)
        & (theirs["labels"][:, None] == ours.pred_classes)
        & ((theirs["scores"][:, None] - ours.scores).abs() < 1e-4)
    )
    rows, columns = same.nonzero().unbind(1)
    first = torch.tensor([i == 0 or rows[i] != rows[i - 1] for i in range(len(rows))]).bool()
    return rows[first], columns[first]


def nearest(theirs: torch.Tensor, ours: torch.Tensor) -> int:
    """How many of their boxes (n, 4) have one of ours (m, 4) within 0.01 px in each coordinate."""
    return int(((theirs[:, None] - ours).abs().amax(dim=2).amin(dim=1) < 1e-2).sum())


def detectron2_version() -> str:
    import detectron2

    return detectron2.__version__


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(required=True)
    step = steps.add_parser("reference", help="run MMDetection, in its environment")
    step.add_argument("--output", required=True)
    step.add_argument("--images", nargs="+", required=True)
    step.add_argument("--short-edge", type=int, default=800)
    step.add_argument("--seed", type=int, default=0)
    step.set_defaults(run=reference)
    step = steps.add_parser("compare", help="run this project, in its environment")
    step.add_argument("--reference", required=True, help="the folder that `reference` wrote")
    step.add_argument("--json", help="file for the figures")
    step.set_defaults(run=compare)
    args = parser.parse_args()
    args.run(args)
