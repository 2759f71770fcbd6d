"""Check and measure on a GPU, within ten minutes, all that can't be on a machine without one.

    python benchmarks/gpu.py                                  # on images that it draws
    python benchmarks/gpu.py --images a.jpg b.jpg --annotations instances.json
    python benchmarks/gpu.py --dry-run                        # prints the steps, and needs no GPU

It compiles the operators for this GPU, runs the tests that need one, benchmarks/roi_warp.py,
benchmarks/models.py (HTC beside Detectron2's Cascade Mask R-CNN, inference and training),
benchmarks/model_profile.py, and the tests of the operators under compute-sanitizer.

Each step is a process with a time limit. One that fails or takes too long stops no other. Prints a
table, and writes benchmarks/results/gpu.json, with what each step printed last, beside the results
of the benchmarks. Exit code 1: a step has failed, or there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from record import RESULTS, ROOT, write_record

LAYERS = "tests/layers"
OPERATORS = [f"{LAYERS}/test_roi_warp_cuda.py", f"{LAYERS}/test_pyramid_roi_align_cuda.py"]
MODELS = ["htc", "cascade", "detectron2_cascade"]
KEPT = 6000  # characters of what a step prints


@dataclass
class Step:
    """A command, its time limit in seconds, and what it needs in its environment."""

    name: str
    limit: float
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Result:
    """How a step went: "passed", "failed", "too slow" or "skipped"; seconds; its last output."""

    name: str
    outcome: str
    seconds: float
    output: str


def make_steps(images: list[str], annotations: str, output: Path) -> list[Step]:
    """Return the steps: what others need first, and what takes longest at the end."""
    python, to = sys.executable, ["--output", str(output)]
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # Not those whose device assertion is an error to the sanitizer, nor those that take long.
    few = [*OPERATORS, "-k", "lower_precision or deterministic or without_pixels or strides"]
    sanitizer = ["compute-sanitizer", "--error-exitcode", "1", "--tool"]
    # Each tensor then has an allocation of its own, whose end the sanitizer sees.
    apart = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    shared = ["--images", *images, "--device", "cuda"]
    models = ["--annotations", annotations, "--models", *MODELS, "--repeats", "3", *to]
    return [
        Step("build", 150, [python, "setup.py", "build_ext", "--inplace"]),
        Step("tests", 120, [*pytest, *OPERATORS, "tests/modeling/test_host_waits.py"]),
        Step("RoI warp", 60, [python, "benchmarks/roi_warp.py", "--device", "cuda", *to]),
        Step("models", 150, [python, "benchmarks/models.py", *shared, *models]),
        Step("profile", 60, [python, "benchmarks/model_profile.py", *shared, *to]),
        Step("memcheck", 90, [*sanitizer, "memcheck", *pytest, *few], apart),
        Step("racecheck", 90, [*sanitizer, "racecheck", *pytest, *few], apart),
    ]


def run_step(step: Step, seconds_left: float) -> Result:
    """Run a step, within its limit and what is left of the time of all."""
    limit = min(step.limit, seconds_left)
    if limit <= 0:
        return Result(step.name, "skipped", 0, "no time was left")
    variables = os.environ | step.environment
    toolkit = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin"
    variables |= {
        "PATH": f"{os.environ.get('PATH', os.defpath)}:{toolkit}",
        "PYTHONPATH": f"{ROOT / 'projects'}:{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }
    if shutil.which(step.command[0], path=variables["PATH"]) is None:
        return Result(step.name, "skipped", 0, f"there is no {step.command[0]}")
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        variables |= {"TORCH_CUDA_ARCH_LIST": f"{major}.{minor}", "FORCE_CUDA": "1"}
    start = time.monotonic()
    with tempfile.TemporaryFile() as log:
        # A session of its own, so that the processes that it starts end with it.
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env=variables,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            outcome = "failed" if process.wait(limit) else "passed"
        except subprocess.TimeoutExpired:
            outcome = "too slow"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.seek(0)
        output = log.read().decode(errors="replace")[-KEPT:]
    return Result(step.name, outcome, round(time.monotonic() - start, 1), output)


def draw_images(folder: Path, number: int = 4) -> tuple[list[str], str]:
    """Draw toy scenes; return their files, and that of their annotations."""
    from hybrid_cascade.data.toy_scenes import draw_toy_scenes

    draw_toy_scenes(str(folder), num_train=2 * number + 2, num_val=1, image_size=(480, 640))
    annotations = folder / "annotations" / "instances_train.json"
    content = json.loads(annotations.read_text())
    things = {a["image_id"] for a in content["annotations"] if not a["iscrowd"]}
    names = [i["file_name"] for i in content["images"] if i["id"] in things]
    return [str(folder / "train" / name) for name in names[:number]], str(annotations)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", nargs="+", help="image files; drawn if there are none")
    parser.add_argument("--annotations", help="their instances, COCO's JSON")
    parser.add_argument("--steps", nargs="+", metavar="STEP", help="some of them, by name")
    parser.add_argument("--minutes", type=float, default=10, help="of all steps together")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--dry-run", action="store_true", help="print the steps, and run none")
    args = parser.parse_args()
    if bool(args.images) != bool(args.annotations):
        parser.error("--images and --annotations belong together")
    with tempfile.TemporaryDirectory() as folder:
        if args.images:
            images = [str(Path(image).resolve()) for image in args.images]
            annotations = str(Path(args.annotations).resolve())
        elif args.dry_run:
            images, annotations = ["DRAWN"], "DRAWN"
        elif torch.cuda.is_available():
            images, annotations = draw_images(Path(folder) / "toy_scenes")
        if not args.dry_run and not torch.cuda.is_available():
            print("There is no GPU that this PyTorch can use.", file=sys.stderr)
            return 1
        steps = make_steps(images, annotations, args.output.resolve())
        names = [step.name for step in steps]
        if unknown := set(args.steps or []) - set(names):
            parser.error(f"--steps {', '.join(unknown)}: there are {', '.join(names)}")
        steps = [step for step in steps if not args.steps or step.name in args.steps]
        if args.dry_run:
            for step in steps:
                print(f"{step.name} ({step.limit:.0f} s): {' '.join(step.command)}")
            return 0
        return run_all(steps, 60 * args.minutes, args.output)


def run_all(steps: list[Step], seconds: float, output: Path) -> int:
    """Run the steps, print and write how they went; return the exit code."""
    end, results = time.monotonic() + seconds, []
    for step in steps:
        print(f"{step.name} ...", flush=True)
        results.append(run_step(step, end - time.monotonic()))
        if results[-1].outcome != "passed":
            print(results[-1].output, flush=True)
    print("\n| step | outcome | seconds |\n|---|---|---|")
    for result in results:
        print(f"| {result.name} | {result.outcome} | {result.seconds:.0f} |")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    write_record(output / "gpu.json", {"steps": [asdict(r) for r in results]}, device)
    return int(any(result.outcome != "passed" for result in results))


if __name__ == "__main__":
    sys.exit(main())
