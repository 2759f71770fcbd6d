"""Export a trained model as TorchScript, and compare the file with the model.

    %(prog)s --config-file htc/htc_r50_fpn_1x.py \\
        --weights output/model_final.pth --sample-image image.jpg --output htc.ts

traces the model on the sample image, reloads the file, and compares what it detects with what the
model detects: in the sample image, in a part of it of another shape, and in a black image. The file
is kept if they agree. Exit code 1: they do not. 2: bad usage, or a model that does not export;
docs/export.md says which do, and how to use the file.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from detectron2.export import dump_torchscript_IR

from ..engine import build_model, load_config, load_weights, test_augmentations
from ..export import check_traceable, detect, largest_differences, trace
from ..predict import as_model_input, read_inputs
from .arguments import CONFIG_HELP
from .quiet import leave_out_known_warnings

# Boxes in pixels, masks and scores as probabilities. Classes, numbers and sizes must be equal.
TOLERANCES = {"pred_boxes": 1e-3, "pred_masks": 1e-5, "scores": 1e-5}


def main(argv: list[str] | None = None) -> int:
    leave_out_known_warnings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help=CONFIG_HELP)
    parser.add_argument("--weights", required=True, help="checkpoint, a path or URL")
    parser.add_argument("--sample-image", required=True, help="an image in which there are objects")
    parser.add_argument("--output", required=True, type=Path, help="the file to write")
    parser.add_argument("--dump-graph", help="folder for the graph in readable form")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of the config, last")
    args = parser.parse_args(argv)

    for path in (args.weights, args.sample_image):
        if "://" not in path and not os.path.isfile(path):
            parser.error(f"no such file: {path}")

    try:
        cfg = load_config(args.config_file, args.opts)
        sample = next(read_inputs(args.sample_image))
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    image = as_model_input(sample, *test_augmentations(cfg))["image"].float()

    model = build_model(cfg)
    try:
        check_traceable(model)
    except ValueError as error:
        parser.error(str(error))
    load_weights(model, args.weights)
    image = image.to(model.device)
    with torch.no_grad():
        [instances] = detect(model, [{"image": image}])
    if len(instances) == 0:
        parser.error(f"nothing is detected, so nothing can be compared: {args.sample_image}")

    args.output.parent.mkdir(parents=True, exist_ok=True)
    graph = trace(model, image)
    # Under another name until it is compared, so that an older file stays if this one is wrong.
    candidate = args.output.with_name(args.output.name + ".new")
    graph.save(candidate)
    if args.dump_graph:
        dump_torchscript_IR(graph, args.dump_graph)
    graph = torch.jit.load(candidate, map_location=model.device)
    if not agree(model, graph, image):
        candidate.unlink()
        print("The graph does not do what the model does: no file is written.", file=sys.stderr)
        return 1
    candidate.replace(args.output)
    operators = {
        name
        for name in torch.jit.export_opnames(graph)
        if not name.startswith(("aten::", "prim::"))
    }
    print(f"wrote {args.output}; it needs {', '.join(sorted(operators))} beside PyTorch")
    return 0


def agree(model: torch.nn.Module, graph: torch.jit.ScriptModule, image: torch.Tensor) -> bool:
    """Compare a graph with its model on three images of different shapes; print the differences."""
    height, width = image.shape[1:]
    images = {
        "sample image": image,
        "part of it": image[:, : height // 2, : width * 3 // 4],
        "black image": torch.zeros_like(image[:, :, : width // 2]),
    }
    all_agree = True
    for name, compared in images.items():
        print(f"{name}, {compared.shape[1]}x{compared.shape[2]}: ", end="")
        try:
            with torch.no_grad():
                graph(compared)
                # In the second run, PyTorch optimizes the graph for what it saw in the first one.
                number = len(graph(compared)[0])
            differences = largest_differences(model, graph, compared)
        except RuntimeError as error:
            print(f"the graph fails: {error}")
            all_agree = False
            continue
        described = ", ".join(f"{field} {value:g}" for field, value in differences.items())
        print(f"{number} detections, largest differences: {described}")
        all_agree &= all(value <= TOLERANCES.get(field, 0) for field, value in differences.items())
    return all_agree
