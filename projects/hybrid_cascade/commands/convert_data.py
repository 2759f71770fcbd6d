"""Convert annotations of Labelme, YOLO, VOC or LVIS into COCO's JSON, or share out such a file.

    %(prog)s --from labelme annotations/ --images photos/ --output train.json
    %(prog)s --from yolo labels/train/ --images images/train/ --output train.json
    %(prog)s --from coco all.json --output train.json --val-output val.json

INPUT is a folder of labels, or a JSON file (coco, lvis). With --val-output, a fifth of the images,
chosen at random, goes to a second file. Classes are numbered as in --classes, a text file with a
name in each line, YOLO's data.yaml, or another JSON file in COCO's format. Without it, they are
numbered by the alphabet (labelme, voc), or as in the data.yaml or classes.txt near the labels
(yolo). If two folders are converted, to train on and to evaluate on, both need the same --classes.
SBD has a command of its own (tools/prepare_sbd.py, hybrid-cascade prepare-sbd).

The exit code is 2 if something can't be converted; the message names file and key.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from ..data import DatasetError
from ..data.checks.coco_file import examine_coco_file, read_coco_file
from ..data.checks.report import Report
from ..data.conversion import (
    LabelledImage,
    find_class_list,
    lvis_to_coco,
    read_class_names,
    read_labelme,
    read_voc_xml,
    read_yolo,
    split_coco,
    to_coco,
)

OF_FILES = ("coco", "lvis")
OF_FOLDERS = ("labelme", "voc", "yolo")


def main(argv: list[str] | None = None) -> int:
    """Run the tool with these arguments, and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="format", required=True, choices=(*OF_FOLDERS, *OF_FILES), help="the format"
    )
    parser.add_argument("input", metavar="INPUT", type=Path, help="folder or file, see above")
    parser.add_argument("--images", type=Path, help="folder of the images; default: INPUT")
    parser.add_argument("--classes", type=Path, help="file with the names of the classes")
    parser.add_argument("--output", required=True, type=Path, help="JSON file to write")
    parser.add_argument("--val-output", type=Path, help="JSON file for a part of the images")
    parser.add_argument("--val-fraction", type=float, default=0.2, help="how many they are (0.2)")
    parser.add_argument("--seed", type=int, default=0, help="another one chooses other images")
    args = parser.parse_args(argv)
    _check_usage(parser, args)
    try:
        content = _read(args)
        parts = [content]
        if args.val_output:
            parts = split_coco(content, args.val_fraction, args.seed)
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 2
    for path, part in zip([args.output, args.val_output], parts, strict=False):
        _write(path, part)
        print(
            f"{path}: {len(part['images'])} images, {len(part['annotations'])} annotations, "
            f"{len(part['categories'])} classes"
        )
    return 0


def _check_usage(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    is_file = args.format in OF_FILES
    if not (args.input.is_file() if is_file else args.input.is_dir()):
        parser.error(f"no such {'file' if is_file else 'folder'}: {args.input}")
    if is_file and (args.images or args.classes):
        parser.error(f"--from {args.format} takes images and classes from the file")
    if args.images and not args.images.is_dir():
        parser.error(f"--images: no such folder: {args.images}")
    if args.classes and not args.classes.is_file():
        parser.error(f"--classes: no such file: {args.classes}")
    if not 0 < args.val_fraction < 1:
        parser.error(f"--val-fraction {args.val_fraction} must be between 0 and 1")
    if args.seed < 0:
        parser.error(f"--seed {args.seed} must be at least 0")
    outputs = [path for path in (args.output, args.val_output) if path]
    if len(set(map(os.path.abspath, outputs))) < len(outputs):
        parser.error("--output and --val-output are the same file")
    for path in outputs:
        if path.exists():
            parser.error(f"{path} exists: delete it, or name another file")
        if not path.parent.is_dir():
            parser.error(f"no such folder: {path.parent}")


def _read(args: argparse.Namespace) -> dict[str, list]:
    """Return the input in COCO's format."""
    if args.format in OF_FILES:
        path, where = str(args.input), f"'{args.input}'"
        content = {"annotations": [], **read_coco_file(path, where)}
        if args.format == "lvis":
            content = lvis_to_coco(content, where)
        report = Report(where)
        examine_coco_file(content, path, report, evaluation=False, masks=False)
        report.close()
        return content
    names = read_class_names(args.classes) if args.classes else None
    if args.format == "yolo" and names is None:
        names = read_class_names(find_class_list(args.input))
    return to_coco(_images(args, names), names)


def _images(args: argparse.Namespace, names: list[str] | None) -> Iterator[LabelledImage]:
    root = args.images or args.input
    if args.format == "yolo":
        return read_yolo(args.input, root, names)
    return {"labelme": read_labelme, "voc": read_voc_xml}[args.format](args.input, root)


def _write(path: Path, content: dict[str, list]) -> None:
    # Under another name first, so that there is never half a JSON file.
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content))
    os.replace(part, path)
