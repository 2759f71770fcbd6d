#!/usr/bin/env python
"""Time of exported models in onnxruntime and OpenVINO beside the models themselves, on this CPU.

    python benchmarks/exported.py --image a.jpg --threads 2

exports each of --models (a config, and the short edge of its image) with pasted masks, and takes
the time from the resized pixels to masks of the original image's size. Weights are random, such
that every layer matters and 100 instances are found. In every round each of them runs once, in an
order that rotates; figures are medians over the rounds. Beside the time that passes stands that of
the processor, of all threads together, which other processes disturb less. The detections of each
are compared with the model's. OpenVINO runs in float32 and, where the processor has it, in
bfloat16, its default. Prints Markdown tables; writes benchmarks/results/exported_cpu.json.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import openvino
import torch
from detectron2_model import Detectron2Model
from model_inputs import read_images
from model_process import HTC_CONFIG
from record import RESULTS, ROOT, write_record
from timing import interleaved, medians, seconds_of

from hybrid_cascade.export import export_onnx, largest_differences

MODELS = ["configs/quick_start/htc_toy.py:128", f"{HTC_CONFIG}:800"]


def onnxruntime_graph(path: Path, threads: int) -> Callable:
    """Return the file in onnxruntime, which takes and returns tensors."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Its threads would otherwise spin for a while after their work, in the way of the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(image, size):
        outputs = session.run(None, {"image": image.numpy(), "output_size": size.numpy()})
        return tuple(map(torch.from_numpy, outputs))

    return run


def openvino_graph(path: Path, threads: int, precision: str) -> Callable:
    """Return the file in OpenVINO, which takes and returns tensors."""
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(path, "CPU", settings)

    def run(image, size):
        outputs = compiled({"image": image.numpy(), "output_size": size.numpy()})
        return tuple(torch.from_numpy(outputs[x]) for x in compiled.outputs)

    return run


def has_bfloat16() -> bool:
    """Tell whether OpenVINO computes in bfloat16 on this processor."""
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def times_of(run: Callable) -> dict[str, float]:
    """Return the seconds that a call takes, and those of the processor."""
    start = time.process_time()
    seconds = seconds_of(run)
    return {"seconds": seconds, "cpu_seconds": time.process_time() - start}


def measure(config: str, short_edge: int, args: argparse.Namespace) -> dict[str, dict]:
    """Return seconds, and what differs from the model's detections, of each way to run a model."""
    images = read_images([args.image], short_edge)
    detector = Detectron2Model.of_config(str(ROOT / config), [])
    detector.standardize_weights(images)
    [model_input] = detector.inputs(images)
    model, image = detector.model, model_input["image"].float()
    output_size = model_input["height"], model_input["width"]
    inputs = image, torch.tensor(output_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model, image, path, paste_masks=True)
        graphs = {
            "onnxruntime": onnxruntime_graph(path, args.threads),
            "OpenVINO, float32": openvino_graph(path, args.threads, "f32"),
        }
        if has_bfloat16():
            graphs["OpenVINO, bfloat16"] = openvino_graph(path, args.threads, "bf16")
    runs = {"model": lambda: model([copy.copy(model_input)])}
    runs |= {name: partial(graph, *inputs) for name, graph in graphs.items()}
    runs = {name: partial(times_of, run) for name, run in runs.items()}
    interleaved(runs, 1)  # for warming up
    rounds = interleaved(runs, args.repeats)
    report = {name: {**medians(times), "rounds": times} for name, times in rounds.items()}
    for name, graph in graphs.items():
        differences = largest_differences(model, graph, image, output_size)
        # JSON has no infinity.
        report[name]["differences"] = {k: str(v) for k, v in differences.items()}
    number = len(model([copy.copy(model_input)])[0]["instances"])
    return {"image": list(image.shape[1:]), "detections": number, "runs": report}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", required=True)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="CONFIG:SHORT_EDGE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--results", type=Path, default=RESULTS / "exported_cpu.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    reports = {}
    for model in args.models:
        config, short_edge = model.rsplit(":", 1)
        with torch.no_grad():
            report = measure(config, int(short_edge), args)
        reports[config] = report
        height, width = report["image"]
        print(f"\n{config}, {height} x {width} pixels, {report['detections']} detections\n")
        print("| | seconds | of the processor | by the model's | boxes, scores, masks differ by |")
        print("|---|---|---|---|---|")
        seconds_of_model = report["runs"]["model"]["cpu_seconds"]
        for name, run in report["runs"].items():
            differences = run.get("differences", {})
            fields = ("pred_boxes", "scores", "pred_masks")
            described = ", ".join(f"{float(differences[f]):.1g}" for f in fields if differences)
            seconds, cpu_seconds = run["seconds"], run["cpu_seconds"]
            ratio = cpu_seconds / seconds_of_model
            print(f"| {name} | {seconds:.3f} | {cpu_seconds:.3f} | {ratio:.2f} | {described} |")
    versions = {name: version(name) for name in ("onnxruntime", "openvino")}
    figures = {"image": Path(args.image).name, "versions": versions, "models": reports}
    write_record(args.results, figures)


if __name__ == "__main__":
    main()
