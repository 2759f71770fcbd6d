"""Draw what each stage of a trained cascade finds, for any images.

    %(prog)s --config-file quick_start/htc_toy.py \\
        --weights output/quick_start/model_final.pth --input photo.jpg folder/ --output panels/

writes panels/<name>_cascade.png for each image. Exit code 2 stands for bad usage: no such file, or
no image that can be read.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

import cv2
from detectron2.data import MetadataCatalog
from PIL import Image
from tqdm import tqdm

from ..engine import (
    build_model,
    harmless_warnings_ignored,
    inference_autocast,
    load_config,
    load_weights,
    prepare_inference,
    test_augmentations,
    test_dataset_names,
)
from ..predict import InputImage, as_model_input, find_class_names
from ..visualization import draw_cascade_panel
from .arguments import parser_with_model

PROGRESS_FROM = 4  # images; with fewer, a progress line is not worth showing


@harmless_warnings_ignored()
def main(argv: list[str] | None = None) -> int:
    parser = parser_with_model(__doc__)
    parser.add_argument("--input", required=True, nargs="+", type=Path, help="images and folders")
    parser.add_argument("--output", required=True, type=Path, help="folder for the panels")
    parser.add_argument("--dataset", help="with the class names; default: the checkpoint's")
    parser.add_argument(
        # The second is the name that the option had first.
        "--score-thresh",
        "--score-threshold",
        type=float,
        default=0.5,
        help="detections with lower scores are left out",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of the config, last")
    args = parser.parse_args(argv)

    if "://" not in args.weights and not os.path.isfile(args.weights):
        parser.error(f"no such file: {args.weights}")
    if args.dataset and args.dataset not in MetadataCatalog.list():
        parser.error(f"no such dataset: {args.dataset}")
    try:
        paths = find_images(args.input)
        cfg = load_config(args.config_file, args.opts)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))

    model = build_model(cfg)
    trained_with = load_weights(model, args.weights)
    model = prepare_inference(cfg, model.eval())
    if args.dataset:
        metadata = MetadataCatalog.get(args.dataset)
    else:
        metadata = find_class_names(trained_with, test_dataset_names(cfg)[0])

    preparation = test_augmentations(cfg)
    args.output.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for path in tqdm(paths, unit="image", disable=len(paths) < PROGRESS_FROM):
        image = cv2.imread(str(path))
        if image is None:
            tqdm.write(f"cannot read image, skipped: {path}", file=sys.stderr)
            continue
        batched_input = as_model_input(InputImage(str(path), image), *preparation)
        with inference_autocast(cfg):
            panel = draw_cascade_panel(
                model, batched_input, metadata, score_thresh=args.score_thresh
            )
        Image.fromarray(panel).save(args.output / f"{path.stem}_cascade.png")
        drawn += 1
    return 0 if drawn else 2


def find_images(inputs: list[Path]) -> list[Path]:
    """List the images among files and folders, without subfolders.

    Files are images if OpenCV can read their content, whatever their names end in.

    Raises:
        ValueError: if a path does not exist, is not an image or holds none, or if two images would
            be written to the same panel.
    """
    paths = []
    for path in inputs:
        if not path.exists():
            raise ValueError(f"no such file: {path}")
        candidates = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
        images = [p for p in candidates if cv2.haveImageReader(str(p))]
        if not images:
            raise ValueError(f"no image that can be read: {path}")
        paths.extend(images)
    stem, count = Counter(p.stem for p in paths).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"{count} images would be written to {stem}_cascade.png: "
            + ", ".join(str(p) for p in paths if p.stem == stem)
        )
    return paths
