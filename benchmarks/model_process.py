"""The models that models.py compares, and the process in which each of them runs."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from record import ROOT

from hybrid_cascade.converters import MMDET

HTC_CONFIG = "configs/htc/htc_r50_fpn_1x.py"
CASCADE_CONFIG = "configs/cascade_mask_rcnn/cascade_mask_rcnn_r50_fpn_1x.py"
TITLES = {
    "htc": "HTC, ours",
    "htc_unfused": "HTC, ours, layers not joined",
    "htc_bfloat16": "HTC, ours, bfloat16",
    "mmdet_htc": "HTC, MMDetection",
    "cascade": "Cascade Mask R-CNN, ours",
    "detectron2_cascade": "Cascade Mask R-CNN, Detectron2",
}
# Ways in which our HTC infers: overrides of its config.
VARIANTS = {
    "htc_unfused": ["train.inference.fuse_layers=False"],
    "htc_bfloat16": ["train.inference.dtype=bfloat16"],
}


def title(name: str) -> str:
    """Return what tables and plots call a model of `TITLES`, or a config file."""
    return TITLES.get(name, Path(name).stem)


class ModelProcess:
    """A process that runs model_worker.py with one model."""

    def __init__(self, name: str, weights: Path | None, args: argparse.Namespace):
        """
        Args:
            name: one of `TITLES`, or a config file of this project.
            weights: a checkpoint of this model; initial weights if None.
            args: the command line of models.py.
        """
        python, env = sys.executable, dict(os.environ)
        # OpenMP's threads would otherwise spin for a while after their work, in the way of others.
        env |= {"OMP_NUM_THREADS": str(args.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        model = {"kind": "ours", "weights": weights and str(weights), "device": args.device}
        if name == "mmdet_htc":
            model["kind"], python = "mmdet", args.mmdet_python
            env.pop("PYTHONPATH", None)  # packages of this environment
        elif name == "detectron2_cascade":
            model["kind"] = "detectron2"
        else:
            is_htc = name == "htc" or name in VARIANTS
            config = HTC_CONFIG if is_htc else {"cascade": CASCADE_CONFIG}.get(name, name)
            # What makes our HTC compute what MMDetection's does, but for the masks of all stages.
            # The text after the semicolon is about these.
            settings = shlex.split(MMDET.lazy_settings.partition(";")[0]) if is_htc else []
            model |= {
                "config": str(ROOT / config),
                "settings": [*settings, *VARIANTS.get(name, [])],
                "one_mask_head": name == "cascade",
            }
        arguments = {"threads": args.threads, "amp": args.amp, **model}
        self.name = name
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("model_worker.py")), json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=env,
        )

    def ask(self, do: str, **arguments) -> dict:
        """Let the process call a method of `model_worker.Worker`; return the answer.

        Raises:
            RuntimeError: if the process has failed, with what it printed.
        """
        try:
            self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            self.process.wait()
            self.log.seek(0)
            raise RuntimeError(f"{self.name} failed:\n{self.log.read()[-4000:]}") from error

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait()
