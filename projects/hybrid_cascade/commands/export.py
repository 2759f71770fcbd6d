"""Export a trained model as TorchScript or ONNX, and compare the file with the model.

    %(prog)s --config-file htc/htc_r50_fpn_1x.py \\
        --weights output/model_final.pth --sample-image image.jpg --output htc.onnx

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

from ..engine import (
    build_model,
    harmless_warnings_ignored,
    load_config,
    load_weights,
    test_augmentations,
)
from ..export import (
    OnnxGraph,
    check_packages,
    check_traceable,
    detect,
    export_onnx,
    largest_differences,
    trace,
)
from ..export.comparison import Graph
from ..export.detection import inputs_of
from ..predict import as_model_input, read_inputs
from .arguments import parser_with_model

# Boxes by the longer side of the image, masks and scores as probabilities. Classes, numbers and
# sizes must be equal. Runtimes of ONNX have convolutions of their own, whose roundings add up.
TOLERANCES = {
    "torchscript": {"pred_boxes": 1e-6, "pred_masks": 1e-5, "scores": 1e-5},
    "onnx": {"pred_boxes": 1e-5, "pred_masks": 1e-3, "scores": 1e-4},
}
MOST_PIXELS = 1e-3  # of pasted masks, the part that may differ


@harmless_warnings_ignored()
def main(argv: list[str] | None = None) -> int:
    parser = parser_with_model(__doc__)
    parser.add_argument("--sample-image", required=True, help="an image in which there are objects")
    parser.add_argument("--output", required=True, type=Path, help="the file to write")
    parser.add_argument(
        "--format", choices=list(TOLERANCES), help="default: onnx for an --output named .onnx"
    )
    parser.add_argument(
        "--paste-masks",
        action="store_true",
        help="the graph also takes the size of its output, resizes boxes and pastes masks to it",
    )
    parser.add_argument("--dump-graph", help="folder for TorchScript's graph in readable form")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of the config, last")
    args = parser.parse_args(argv)
    is_onnx = (args.format or args.output.suffix) in ("onnx", ".onnx")

    for path in (args.weights, args.sample_image):
        if "://" not in path and not os.path.isfile(path):
            parser.error(f"no such file: {path}")
    if is_onnx and args.dump_graph:
        parser.error("--dump-graph writes TorchScript; ONNX files have viewers, such as Netron")
    try:
        check_packages(*(["onnx", "onnxruntime"] if is_onnx else []))
    except ImportError as error:
        parser.error(str(error))

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
    if is_onnx:
        model.cpu()  # as the graph in the comparison; the file is for every device
    image = image.to(model.device)
    with torch.no_grad():
        [instances] = detect(model, [{"image": image}])
    if len(instances) == 0:
        parser.error(f"nothing is detected, so nothing can be compared: {args.sample_image}")

    args.output.parent.mkdir(parents=True, exist_ok=True)
    # Under another name until it is compared, so that an older file stays if this one is wrong.
    candidate = args.output.with_name(args.output.name + ".new")
    try:
        write = _write_onnx if is_onnx else _write_torchscript
        graph, needs = write(model, image, candidate, args)
        output_size = sample.image.shape[:2] if args.paste_masks else None
        tolerances = dict(TOLERANCES["onnx" if is_onnx else "torchscript"])
        tolerances["pred_boxes"] *= max(output_size or image.shape[1:])
        if args.paste_masks:
            tolerances["pred_masks"] = MOST_PIXELS
        if not agree(model, graph, image, tolerances, output_size):
            print("The graph does not do what the model does: no file is written.", file=sys.stderr)
            return 1
        candidate.replace(args.output)
    except torch.onnx.errors.OnnxExporterError as error:
        parser.error(f"ONNX can't describe this model: {error}")
    finally:
        candidate.unlink(missing_ok=True)
    print(f"wrote {args.output}; it needs {needs}")
    return 0


def _write_torchscript(
    model: torch.nn.Module, image: torch.Tensor, path: Path, args: argparse.Namespace
) -> tuple[Graph, str]:
    """Write a file; return what it does when it is loaded, and what it needs."""
    graph = trace(model, image, args.paste_masks)
    graph.save(path)
    if args.dump_graph:
        dump_torchscript_IR(graph, args.dump_graph)
    graph = torch.jit.load(path, map_location=model.device)
    operators = {
        name
        for name in torch.jit.export_opnames(graph)
        if not name.startswith(("aten::", "prim::"))
    }
    return graph, f"{', '.join(sorted(operators))} beside PyTorch"


def _write_onnx(
    model: torch.nn.Module, image: torch.Tensor, path: Path, args: argparse.Namespace
) -> tuple[Graph, str]:
    """Do what `_write_torchscript` does, for ONNX."""
    export_onnx(model, image, path, args.paste_masks)
    return OnnxGraph(path), "a runtime of ONNX, opset 17"


def agree(
    model: torch.nn.Module,
    graph: Graph,
    image: torch.Tensor,
    tolerances: dict[str, float],
    output_size: tuple[int, int] | None,
) -> bool:
    """Compare a graph with its model on three images of different shapes; print the differences.

    Args:
        tolerances: the largest difference of each field; 0 for those that are left out.
        output_size: (height, width), for a graph that pastes masks.
    """
    height, width = image.shape[1:]
    images = {
        "sample image": image,
        "part of it": image[:, : height // 2, : width * 3 // 4],
        "black image": torch.zeros_like(image[:, :, : width // 2]),
    }
    all_agree = True
    for name, compared in images.items():
        print(f"{name}, {compared.shape[1]}x{compared.shape[2]}: ", end="")
        inputs = inputs_of(compared, output_size)
        try:
            with torch.no_grad():
                graph(*inputs)
                # In the second run, PyTorch optimizes the graph for what it saw in the first one.
                number = len(graph(*inputs)[0])
            differences = largest_differences(model, graph, compared, output_size)
        except RuntimeError as error:
            print(f"the graph fails: {error}")
            all_agree = False
            continue
        described = ", ".join(f"{field} {value:g}" for field, value in differences.items())
        print(f"{number} detections, largest differences: {described}")
        all_agree &= all(value <= tolerances.get(field, 0) for field, value in differences.items())
    return all_agree
