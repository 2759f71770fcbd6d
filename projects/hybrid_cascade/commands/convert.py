"""Convert a checkpoint of MMDetection, Detectron2, torchvision or Caffe into one of ours.

    %(prog)s --from mmdet htc_r50_fpn_1x_coco.pth htc_r50.pth \\
        --config-file htc/htc_r50_fpn_1x.py
    hybrid-cascade evaluate --config-file htc/htc_r50_fpn_1x.py \\
        train.init_checkpoint=htc_r50.pth

Tensors get new names and keep their values, with two exceptions: MNC's get our order of classes and
anchors, and torchvision's SSD loses the classes that COCO does not have. With --config-file the
model is built, and the file must have a value of the right shape for every parameter. Weights that
start a training (Detectron2, torchvision, Caffe's ImageNet models) only have to fit the backbone.
What they lack, and layers for other classes, starts fresh and is listed. Details are in
docs/checkpoints.md. The exit code is 2 if the file can't be converted.
"""

import argparse
import sys
from pathlib import Path

import torch

from ..converters import SOURCES, convert, describe, find_source
from ..engine import build_model, load_config
from .arguments import CONFIG_HELP


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="project", required=True, choices=SOURCES, help="origin of the checkpoint"
    )
    parser.add_argument("input", metavar="IN", help="checkpoint to read")
    parser.add_argument("output", metavar="OUT", type=Path, help="checkpoint to write")
    parser.add_argument("--config-file", help=f"of the model: {CONFIG_HELP}")
    parser.add_argument(
        "--unsafe-load", action="store_true", help="let the file create any object, and so run code"
    )
    parser.add_argument("opts", nargs="*", help="overrides of the config")
    args = parser.parse_intermixed_args(argv)
    if args.opts and not args.config_file:
        parser.error(f"overrides need --config-file: {' '.join(args.opts)}")
    if args.output.suffix != ".pth" or not args.output.parent.is_dir():
        parser.error(f"OUT must be a .pth file in an existing folder: {args.output}")

    model = None
    try:
        state_dict = SOURCES[args.project].read(args.input, args.unsafe_load)
        if args.config_file:
            model = build_model(load_config(args.config_file, args.opts))
        target = None if model is None else model.state_dict()
        source = find_source(args.project, state_dict, target)
        result = convert(source, state_dict, target)
    except (FileNotFoundError, KeyError, ValueError) as error:
        print(f"{args.input}: {error.args[0] if error.args else error}", file=sys.stderr)
        return 2
    yaml = str(args.config_file).endswith((".yaml", ".yml"))
    for line in describe(source, result, model, yaml):
        print(line)
    author = f"converted from {source.title}"
    torch.save({"model": result.state_dict, "__author__": author}, args.output)
    print(f"{args.output}: {len(result.state_dict)} tensors")
    return 0
