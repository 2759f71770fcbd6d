"""Find the objects in images and videos, and write them in the formats of other tools.

    %(prog)s --config-file quick_start/htc_toy.py \\
        --weights output/quick_start/model_final.pth --input photos/ --output out/ \\
        --format coco-results drawings

Inputs are images, folders with their subfolders, patterns ("photos/*.jpg"), videos, text files with
a path in each line, and COCO's annotation files, whose images are then taken.

For many images, several processes share the work:

    torchrun --nproc_per_node 8 -m hybrid_cascade predict ...

Every process writes what it has found into --output as it goes. A run that was interrupted
continues when the same command is given again. The files that are one for all images are written by
the process that ends last, or with --merge-only. Files that can't be read are listed in failed.txt.

Exit codes: 0, everything is done; 2, bad usage; 3, done, but some files could not be read.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from ..engine import harmless_warnings_ignored
from ..predict import Category, PredictionRun, Predictor, Result, list_items
from .arguments import parser_with_model


@harmless_warnings_ignored()
def main(argv: list[str] | None = None) -> int:
    parser = parser_with_model(__doc__)
    parser.add_argument("--input", required=True, nargs="+", help="what to predict on, see above")
    parser.add_argument("--image-root", default="", help="of the paths in text and JSON files")
    parser.add_argument("--output", required=True, type=Path, help="folder for the results")
    parser.add_argument(
        "--format",
        nargs="+",
        default=["coco-results"],
        metavar="FORMAT",
        help="coco-results, coco (a dataset to correct), csv; for each image: drawings, masks "
        "(PNG), labelme, yolo; video (with the detections drawn)",
    )
    parser.add_argument("--batch-size", type=int, default=1, help="images in the model at a time")
    parser.add_argument(
        "--score-thresh",
        type=float,
        default=0.5,
        help="detections with lower scores are left out; 0 for results to be evaluated",
    )
    parser.add_argument("--classes", nargs="+", help="names of the classes to keep; default: all")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; default: as the config says")
    parser.add_argument("--merge-only", action="store_true", help="do no more images")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of the config, last")
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        parser.error(f"--batch-size {args.batch_size} must be at least 1")

    def keep(result: Result) -> Result:
        wanted = [name in args.classes for name in result.class_names]
        instances = result.instances[torch.tensor(wanted, dtype=torch.bool)]
        return Result(result.name, result.image, instances, result.metadata)

    rank, num_processes = (int(os.environ.get(k, v)) for k, v in (("RANK", 0), ("WORLD_SIZE", 1)))
    device = args.device
    if device is None and num_processes > 1 and torch.cuda.is_available():
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        items = list_items(args.input, args.image_root)
        run = PredictionRun(
            items,
            args.output,
            args.format,
            batch_size=args.batch_size,
            settings={
                "config": args.config_file,
                "overrides": args.opts,
                "weights": args.weights,
                "score threshold": args.score_thresh,
                "classes": args.classes,
            },
            rank=rank,
            num_processes=num_processes,
        )
        predictor = Predictor(
            args.config_file,
            args.weights,
            device=device,
            overrides=args.opts,
            score_thresh=args.score_thresh,
        )
    except (OSError, ValueError, KeyError) as error:
        parser.error(str(error))
    names = predictor.class_names
    unknown = sorted(set(args.classes or ()) - set(names))
    if unknown:
        parser.error(f"--classes: the model has no {unknown}, but {', '.join(names)}")
    if not args.merge_only:
        run.predict(predictor, keep if args.classes else None)
    if not run.is_complete():
        print("Other processes are not done; the last one writes the merged files.")
        return 0
    failed = run.merge(_categories(names, args.input))
    if failed:
        print(f"{failed} files could not be read: {args.output / 'failed.txt'}", file=sys.stderr)
    return 3 if failed else 0


def _categories(names: list[str], inputs: list[str]) -> list:
    """Return the classes, with ids of COCO's annotation file among the inputs, or 1, 2, ..."""
    for path in inputs:
        if path.endswith(".json"):
            ids = {c["name"]: c["id"] for c in json.loads(Path(path).read_text())["categories"]}
            if ids.keys() >= set(names):
                return [Category(ids[name], name) for name in names]
    return [Category(index, name) for index, name in enumerate(names, start=1)]
