#!/usr/bin/env python
"""What bfloat16 and joined layers change in HTC's results: AP of toy scenes, and photographs.

    python benchmarks/inference_dtype.py --weights output/quick_start/model_final.pth \\
        --images a.jpg b.jpg

evaluates the toy HTC with `train_net.py --eval-only` in float32 without joined layers, with them,
and in bfloat16. On photographs, with the same weights, the boxes that it detects in float32 are
given to all: compared are, for these, the probabilities of the classes, the boxes of the last
stage, and the pixels of the masks. Prints Markdown tables; writes
benchmarks/results/inference_dtype.json.
"""

import argparse
import copy
from pathlib import Path

import torch
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Instances
from detectron2_model import Detectron2Model
from model_inputs import read_images
from record import RESULTS, ROOT, write_record
from train_net_run import format_aps, quick_start_config, run_train_net

from hybrid_cascade.engine import inference_autocast, load_config, prepare_inference
from hybrid_cascade.modeling.inference_steps import extract_features

CONFIG = quick_start_config("htc_toy")
WAYS = {
    "float32": ["train.inference.fuse_layers=False"],
    "float32, joined layers": ["train.inference.fuse_layers=True"],
    "bfloat16": ["train.inference.dtype=bfloat16"],
}


def outputs_for(model: torch.nn.Module, inputs: list[dict], found: Instances) -> dict:
    """Return probabilities, boxes and masks, (D, H, W) bool, for given boxes of an image."""
    images = model.preprocess_image(copy.deepcopy(inputs))
    features, _ = extract_features(model, images)
    proposals = [Instances(found.image_size, proposal_boxes=found.pred_boxes.clone())]
    boxes, scores = model.roi_heads.predict_boxes_and_scores(features, proposals)
    given = Instances(found.image_size, **found.get_fields())
    [given] = model.roi_heads.forward_with_given_boxes(features, [given])
    masks = paste_masks_in_image(given.pred_masks[:, 0], given.pred_boxes, found.image_size)
    return {"scores": scores[0], "boxes": boxes[0], "masks": masks}


@torch.no_grad()
def compare_on_image(image: dict, weights: str) -> dict[str, dict[str, float]]:
    """Return, for each way but the first, how far its results are from those of the first."""
    first = Detectron2Model.of_config(CONFIG, ["train.device=cpu"], weights)
    inputs, results, found = first.inputs([image]), {}, None
    for name, overrides in WAYS.items():
        config = load_config(CONFIG, [*overrides, "train.device=cpu"])
        model = prepare_inference(config, first.model)
        with inference_autocast(config):
            if found is None:
                [found] = model.inference(copy.deepcopy(inputs), do_postprocess=False)
                found.remove("pred_masks")
            results[name] = outputs_for(model, inputs, found)
    expected = results.pop("float32")
    report = {}
    for name, result in results.items():
        differ = (result["masks"] != expected["masks"]).sum(dim=(1, 2))
        report[name] = {
            "probability, mean": (result["scores"] - expected["scores"]).abs().mean().item(),
            "probability, largest": (result["scores"] - expected["scores"]).abs().max().item(),
            "box, px, median": (result["boxes"] - expected["boxes"]).abs().median().item(),
            "box, px, largest": (result["boxes"] - expected["boxes"]).abs().max().item(),
            "pixels of a mask": (differ.sum() / expected["masks"].sum()).item(),
        }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", type=Path, required=True, help="of the toy HTC")
    parser.add_argument("--images", nargs="+", required=True, help="photographs")
    parser.add_argument("--short-edge", type=int, default=400, help="of the images, in pixels")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "inference_dtype")
    args = parser.parse_args()
    rows = {
        name: run_train_net(
            "htc_toy",
            args.output / str(number),
            "--eval-only",
            f"train.init_checkpoint={args.weights.resolve()}",
            "train.num_panels=0",
            *overrides,
        )
        for number, (name, overrides) in enumerate(WAYS.items())
    }
    print("| | box AP | mask AP |\n|---|---|---|")
    for name, row in rows.items():
        print(f"| {name} | {format_aps([row])} |")
    images = [
        compare_on_image(image, str(args.weights))
        for image in read_images(args.images, args.short_edge)
    ]
    means = {
        name: {key: sum(i[name][key] for i in images) / len(images) for key in of_first}
        for name, of_first in images[0].items()
    }
    print(f"\n| | {' | '.join(next(iter(means.values())))} |")
    for name, row in means.items():
        print(f"| {name} | {' | '.join(f'{value:.2g}' for value in row.values())} |")
    figures = {"AP": rows, "images": [Path(i).name for i in args.images], "differences": means}
    write_record(RESULTS / "inference_dtype.json", figures)


if __name__ == "__main__":
    main()
