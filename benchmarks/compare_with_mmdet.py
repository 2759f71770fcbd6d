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
OUR_CONFIG = "configs/htc/htc_r50_fpn_1x.py"
CHECKPOINT = "mmdet.pth"


def reference(args: argparse.Namespace) -> None:
    """Run MMDetection; writes DIR/mmdet.pth and DIR/<photograph>.pth."""
    import cv2
    import mmdet_htc

    model = mmdet_htc.build(args.seed)
    mmdet_htc.liven_up(model, mmdet_htc.read(args.images[0], args.short_edge))
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    mmdet_htc.save(model, output / CHECKPOINT)

    recorded = {}
    record_results(model.rpn_head, "predict", recorded)
    record_results(model.roi_head, "predict_bbox", recorded)
    stage_logits = []
    for head in model.roi_head.mask_head:
        head.register_forward_hook(lambda _m, _i, out: stage_logits.append(out[0]))
    for path in args.images:
        pixels, original_size = mmdet_htc.read(path, args.short_edge)
        data = model.data_preprocessor(mmdet_htc.as_inputs([(pixels, original_size)]))
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
                "environment": mmdet_htc.ENVIRONMENT,
                "config": mmdet_htc.CONFIG,
            },
            output / (Path(path).stem + ".pth"),
        )
        print(f"{path}: {len(found)} instances, OpenCV {cv2.__version__}")


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
    from hybrid_cascade.engine import build_model, load_config, load_weights

    folder = Path(args.reference)
    converted = folder / "converted.pth"
    convert(folder / CHECKPOINT, converted)
    settings = settings_but_masks()
    model = build_model(load_config(str(ROOT / OUR_CONFIG), settings))
    load_weights(model, str(converted))

    photographs = {}
    for path in sorted(set(folder.glob("*.pth")) - {converted, folder / CHECKPOINT}):
        theirs = torch.load(path, weights_only=True)
        photographs[path.stem] = report = compare_photograph(model, theirs)
        print(path.stem, json.dumps(report, indent=2))
    results = {
        "command": "benchmarks/compare_with_mmdet.py (reference, then compare)",
        "models": {"mmdet": theirs["config"], "ours": OUR_CONFIG, "our settings": settings},
        "environment": {
            "mmdet": theirs["environment"],
            "detectron2": detectron2_version(),
            **provenance(),
        },
        "photographs": photographs,
    }
    if args.json:
        Path(args.json).write_text(json.dumps(results, indent=2) + "\n")


def convert(checkpoint: Path, converted: Path) -> None:
    """MMDetection's checkpoint of HTC as one of ours."""
    options = ["--from", "mmdet", str(checkpoint), str(converted)]
    options += ["--config-file", str(ROOT / OUR_CONFIG)]
    tool = [sys.executable, str(ROOT / "tools/convert_checkpoint.py")]
    subprocess.run([*tool, *options], check=True, stdout=sys.stderr)


def settings_but_masks() -> list[str]:
    """The overrides of our config with which it computes what MMDetection's does.

    Without that of the masks: ours average them over the stages, MMDetection's are the last's.
    """
    from hybrid_cascade.converters import MMDET

    return [x for x in shlex.split(MMDET.lazy_settings) if "average_masks" not in x]


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
