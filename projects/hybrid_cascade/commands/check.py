"""Say what is wrong and what is odd in your data, before a training does, and draw some of it.

    %(prog)s --train train.json --train-images train/ \\
        --val val.json --val-images val/ --contact-sheet sheet.png

The files are in COCO's format. Errors are what a training or evaluation would stop for. What is odd
is for you to judge: tiny boxes, classes of few objects, copies of images, images that are both
trained and evaluated on. docs/own_data.md has the list.

Exit codes: 0, no errors; 1, errors; 2, bad usage.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json
from PIL import Image

from ..data import DatasetError
from ..data.checks.data_file import (
    DataFile,
    compare,
    examine,
    find_copies,
    find_unlisted_images,
    paths_of,
)
from ..visualization import draw_contact_sheet


def main(argv: list[str] | None = None) -> int:
    """Run the tool with these arguments, and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", metavar="JSON", help="annotations to train on")
    parser.add_argument("--train-images", metavar="FOLDER", help="of the images of --train")
    parser.add_argument("--val", metavar="JSON", help="annotations to evaluate on")
    parser.add_argument("--val-images", metavar="FOLDER", help="of the images of --val")
    parser.add_argument(
        "--boxes", action="store_true", help="masks are not needed, whether there are some or not"
    )
    parser.add_argument("--fast", action="store_true", help="of images, read the headers only")
    parser.add_argument("--contact-sheet", metavar="PNG", type=Path, help="draw some images")
    parser.add_argument("--num-images", type=int, default=24, help="of the contact sheet")
    args = parser.parse_args(argv)
    paths = _given_paths(parser, args)
    if args.num_images < 1:
        parser.error(f"--num-images {args.num_images} must be at least 1")
    sheet = args.contact_sheet
    if sheet and sheet.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        parser.error(f"--contact-sheet is a PNG or JPEG file, not {sheet}")
    if sheet and not sheet.parent.is_dir():
        parser.error(f"--contact-sheet: no such folder: {sheet.parent}")

    try:
        files = {split: DataFile.read(*pair) for split, pair in paths.items()}
    except DatasetError as error:
        print(error)
        return 1
    has_masks = not args.boxes and any(file.has_masks for file in files.values())
    for split, file in files.items():
        options = {"evaluation": split == "val", "masks": has_masks, "decode": not args.fast}
        examine(file, **options)
    find_unlisted_images(list(files.values()))
    contents = map(paths_of, files.values()) if args.fast else find_copies([*files.values()])
    if len(files) == 2:
        compare(*files.values(), *contents)
    print(_summary(files))
    reports = [file.report for file in files.values()]
    for title, name in (("ERRORS", "errors"), ("ODD", "oddities")):
        found = [(report, getattr(report, name)) for report in reports]
        lines = [report.describe(kinds) for report, kinds in found if kinds]
        text = "\n".join([f"\n{title}", *lines]) if lines else f"\n{title}: none"
        # A name may have what no encoding has.
        print(text.encode("utf-8", "backslashreplace").decode())
    has_errors = any(report.errors for report in reports)
    if sheet:
        if has_errors:
            print("\nThere is no contact sheet as long as there are errors.")
        else:
            _draw_sheet(list(files.values()), sheet, args.num_images)
            print(f"\nContact sheet: {sheet}")
    return 1 if has_errors else 0


def _given_paths(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> dict[str, tuple[str, str]]:
    """Return the file and the folder of each split that is given; end with an error if half is."""
    paths = {}
    for split in ("train", "val"):
        json_file, folder = getattr(args, split), getattr(args, f"{split}_images")
        if (json_file is None) != (folder is None):
            parser.error(f"--{split} and --{split}-images come together")
        if json_file is None:
            continue
        if not os.path.isfile(json_file):
            parser.error(f"--{split}: no such file: {json_file}")
        if not os.path.isdir(folder):
            parser.error(f"--{split}-images: no such folder: {folder}")
        paths[split] = json_file, folder
    if not paths:
        parser.error("give --train and --train-images, --val and --val-images, or all")
    return paths


def _summary(files: dict[str, DataFile]) -> str:
    """Return the table of the classes, with a line for each file above."""
    lines = []
    for split, file in files.items():
        numbers = len(file.content["images"]), sum(file.objects.values()), len(file.classes)
        lines.append("{}: {} images, {} objects, {} classes".format(split, *numbers))
    columns = [[(name, i) for i, name in file.classes.items()] for file in files.values()]
    rows = [["class", *(f"{split} {what}" for split in files for what in ("objects", "images"))]]
    for name, i in dict.fromkeys(pair for column in columns for pair in column):
        counts = []
        for file in files.values():
            is_there = file.classes.get(i) == name
            counts += [str(x[i]) if is_there else "-" for x in (file.objects, file.images_of)]
        rows.append([f"{name} ({i})", *counts])
    return "\n".join([*lines, "", *_aligned(rows)])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]


def _draw_sheet(files: list[DataFile], path: Path, num_images: int) -> None:
    chosen, metadata = [], []
    for file in files:
        name = f"{file.json_file} in {file.image_root}"
        images = load_coco_json(file.json_file, file.image_root, name)
        metadata.append(MetadataCatalog.get(name))
        images = [x for x in images if x["annotations"]] or images
        # As many of each file, so that both are seen.
        number = min(len(images), max(1, num_images // len(files)))
        chosen += [images[i] for i in np.linspace(0, len(images) - 1, number).astype(int)]
    Image.fromarray(draw_contact_sheet(chosen, metadata[0])).save(path)
