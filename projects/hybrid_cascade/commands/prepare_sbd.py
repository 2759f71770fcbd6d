"""Convert SBD's instance masks of VOC's images to COCO JSON, registered as sbd_train and sbd_val.

    %(prog)s datasets/sbd

The folder is benchmark_RELEASE/dataset of SBD's archive, with train_noval.txt added; docs/sbd.md
says where to get both. The tool writes annotations/sbd_train.json (5,623 images) and
annotations/sbd_val.json (5,732 images). If it is interrupted, the next call continues where it
stopped. The exit code is 2 if files are missing or damaged; the message names them.
"""

import argparse
import logging
import sys
from pathlib import Path

from ..data import DatasetError, prepare_sbd


def main(argv: list[str] | None = None) -> int:
    """Run the tool with these arguments, and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder with img/, inst/, train.txt and val.txt")
    parser.add_argument(
        "--train-list",
        type=Path,
        help="names of the training images, one in each line; all others are val. Default: "
        "train_noval.txt in the folder. VOC 2012's ImageSets/Main/train.txt works too",
    )
    args = parser.parse_args(argv)
    if not args.root.is_dir():
        parser.error(f"no such folder: {args.root}")

    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        prepare_sbd(args.root, args.train_list)
    except (DatasetError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0
