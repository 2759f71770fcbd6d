"""benchmarks/gpu.py, as far as it goes without a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import gpu
import pytest
import torch
from model_inputs import read_images

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, str(ROOT / "benchmarks/gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_a_sentence_and_fails():
    result = run()
    assert result.returncode == 1 and result.stdout == ""
    lines = [x for x in result.stderr.splitlines() if "GPU" in x and "torch/utils" not in x]
    assert lines == ["There is no GPU that this PyTorch can use."]


def test_a_dry_run_names_files_that_exist_and_takes_ten_minutes_at_most():
    steps = gpu.make_steps(["a.jpg"], "a.json", Path("output"))
    assert 600 <= sum(step.limit for step in steps) <= 720  # a step rarely takes all that it may
    files = [x for step in steps for x in step.command if x.endswith(".py") and "/" in x]
    assert len(files) > 6 and all((ROOT / x).exists() for x in files)
    result = run("--dry-run", "--steps", "build", "memcheck")
    assert result.returncode == 0
    assert [line.split(" ")[0] for line in result.stdout.splitlines()] == ["build", "memcheck"]


def test_a_step_that_fails_or_hangs_stops_no_other_and_is_recorded(tmp_path, capsys):
    def step(name, code):
        return gpu.Step(name, 60.0, [sys.executable, "-c", code])

    steps = [
        step("fails", "print('why'); raise SystemExit(3)"),
        gpu.Step("hangs", 1.0, ["sh", "-c", "echo before; sleep 60"]),
        gpu.Step("lacks", 60.0, ["no-such-program"]),
        step("passes", "print('fine')"),
    ]
    assert gpu.run_all(steps, 30.0, tmp_path) == 1
    record = json.loads((tmp_path / "gpu.json").read_text())
    outcomes = {x["name"]: x["outcome"] for x in record["steps"]}
    expected = {"fails": "failed", "hangs": "too slow", "lacks": "skipped", "passes": "passed"}
    assert outcomes == expected and record["commit"] and record["machine"]
    assert [x["output"].strip() for x in record["steps"]][:2] == ["why", "before"]
    printed = capsys.readouterr().out
    assert "| hangs | too slow |" in printed and "| passes | passed |" in printed
    assert gpu.run_all(steps[-1:], 30.0, tmp_path) == 0
    assert gpu.run_all(steps[-1:], 0.0, tmp_path) == 1  # no time was left


def test_it_draws_images_that_the_benchmark_of_models_can_read(tmp_path):
    images, annotations = gpu.draw_images(tmp_path / "scenes", number=2)
    read = read_images(images, 200, annotations)
    assert len(read) == 2 and all(len(x["boxes"]) > 0 for x in read)
