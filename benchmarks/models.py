#!/usr/bin/env python
"""Time and memory of this project's models beside MMDetection's HTC and Detectron2's Cascade R-CNN.

    python benchmarks/models.py --images a.jpg b.jpg --annotations instances.json \\
        --mmdet-python ENV/bin/python
    python benchmarks/models.py --images ... --device cuda --amp --batch 1 4   # not run so far
    python benchmarks/models.py --images ... --tasks inference --proposals 300 --output output

Prints Markdown tables with ratios; writes benchmarks/results/models_<device>.json and .png, with
the processor's name if the device is a CPU. Without
--mmdet-python (the Python of an environment with MMDetection 3.3.0, mmcv 2.x and mmengine)
MMDetection is left out.

Models:

- htc: our HTC, ResNet-50-FPN as all of these. Ours infer as the config says, with joined layers.
- htc_unfused, htc_bfloat16: the same without joined layers, and in bfloat16. Inference only.
- mmdet_htc: MMDetection's published HTC. It runs three mask branches and keeps the last one's
  masks; ours are the average of the three. All else is set to be the same.
- cascade: our Cascade Mask R-CNN with one mask branch (mask_stages="last"), as Detectron2's.
- detectron2_cascade: Detectron2's own classes and config.
- any other LazyConfig of ours with HTCROIHeads, by its path.

What is the same: the weights (random, such that every layer matters and 100 instances are found in
an image), the resized pixels, the work: from these pixels to masks of the original images' size at
inference; forward, backward and SGD (learning rate 0) in training, on the same instances and label
maps. The instances are those of --annotations; the label maps are painted from them. Each project
has its own form of ground-truth masks: polygons, or bitmaps in MMDetection.

How it is measured: every model has a process of its own (model_worker.py), with --threads threads.
In every round each model runs once on each batch, one model at a time, in an order that rotates;
the others wait for their next request. Figures are medians over the rounds, and means over the
batches. Times of parts come from rounds of their own; "mask RoIs" is the number of boxes that the
mask branches together see there. Memory is the peak of the process (resident on the CPU, on Linux;
allocated by torch on the GPU), in a fresh process for each table. With random weights few boxes
match the ground truth: in a real training the mask branches see more of them.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from model_comparison import compare
from model_inputs import read_images
from model_process import TITLES, VARIANTS
from model_report import draw_bars, print_tables
from model_weights import make_weights
from record import RESULTS, ROOT, file_name, write_record


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", nargs="+", required=True, help="image files")
    add("--annotations", help="their instances, COCO's JSON; needed for training")
    add("--models", nargs="+", default=list(TITLES), metavar="MODEL", help="see above")
    add("--tasks", nargs="+", default=["inference", "training"], choices=["inference", "training"])
    add("--mmdet-python", metavar="PATH", help="Python of MMDetection's environment")
    add("--device", default="cpu", choices=["cpu", "cuda"])
    add("--amp", action="store_true", help="mixed precision, on a GPU")
    add("--threads", type=int, default=2)
    add("--repeats", type=int, default=7)
    add("--short-edge", type=int, default=800, help="of the images at inference, in pixels")
    add("--batch", type=int, nargs="+", default=[1], help="images at a time at inference")
    for quantity in ("proposals", "detections", "stages"):
        add(f"--{quantity}", type=int, help="at inference; as configured if not given")
    add("--train-short-edge", type=int, default=512)
    add("--train-batch", type=int, default=2)
    add("--output", type=Path, default=RESULTS, help="folder for the JSON and PNG")
    args = parser.parse_args()
    if args.amp and args.device != "cuda":
        parser.error("--amp needs --device cuda")
    if "training" in args.tasks and not args.annotations:
        parser.error("--tasks training needs --annotations")
    for name in args.models:
        if name not in TITLES and not (ROOT / name).is_file():
            parser.error(f"--models {name}: neither one of {', '.join(TITLES)} nor a config file")
    if "mmdet_htc" in args.models and not args.mmdet_python:
        print("Without MMDetection, which needs --mmdet-python")
        args.models.remove("mmdet_htc")
    if "mmdet_htc" in args.models and args.stages:
        parser.error("--stages: MMDetection's HTC has no such setting")
    return args


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    # Without paths, which are of one machine.
    options = {k: v for k, v in vars(args).items() if k not in ("mmdet_python", "output")}
    options["images"] = [Path(i).name for i in args.images]
    options["annotations"] = bool(args.annotations)
    name = file_name("models", args.device) + ("_amp" if args.amp else "")
    path = args.output / f"{name}.json"
    reports = {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        images, annotated = folder / "inference.pth", folder / "training.pth"
        torch.save(read_images(args.images, args.short_edge), images)
        weights = make_weights(args.models, images, folder, args)
        for batch in args.batch if "inference" in args.tasks else []:
            heading = f"Inference, {args.short_edge} px, batch {batch}"
            reports[heading] = compare(args.models, weights, images, batch, False, args)
            print_tables(heading, reports[heading], "batch")
        if "training" in args.tasks:
            short_edge, batch = args.train_short_edge, args.train_batch
            torch.save(read_images(args.images, short_edge, args.annotations), annotated)
            heading = f"A step of training, {short_edge} px, batch {batch}"
            trained = [name for name in args.models if name not in VARIANTS]
            reports[heading] = compare(trained, weights, annotated, batch, True, args)
            print_tables(heading, reports[heading], "step")
    draw_bars(reports, path.with_suffix(".png"))
    write_record(path, {"options": options, "tasks": reports}, args.device)


if __name__ == "__main__":
    main()
