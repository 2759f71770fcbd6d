"""A process with one model in it, which models.py starts, in this environment or MMDetection's.

Its argument is a JSON object: "kind" ("ours", "detectron2" or "mmdet"), "weights" (a file, or
null), "threads", "device", "amp"; of ours also "config", "settings" and "one_mask_head", see
`Detectron2Model.of_config`. It answers a line of JSON on stdout to each line of JSON on stdin,
whose "do" is the name of a method of `Worker`, the rest its arguments.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path

import torch
from timing import BACKWARD, UPDATE, Parts, TrainingStep, seconds_of


def build_detector(kind: str, weights: str | None, device: str, **ours):
    """Build the `Detectron2Model` or `MMDetModel` that the process is for."""
    if kind == "mmdet":
        from mmdet_model import MMDetModel

        return MMDetModel(weights, device)
    from detectron2_model import Detectron2Model

    if kind == "detectron2":
        return Detectron2Model.detectron2_cascade(weights, device)
    return Detectron2Model.of_config(weights=weights, device=device, **ours)


class Worker:
    """The requests that the process answers."""

    def __init__(self, amp: bool, **detector):
        self.device, self.amp = detector["device"], amp
        self.detector = build_detector(**detector)
        self.batches = []
        self.found = []

    def load(self, images: str, batch: int, training: bool) -> dict:
        """Load the images of a file; answer their "number" of batches."""
        images = torch.load(images, weights_only=True)
        self.prepare_for(training)
        self.batches = [images[i : i + batch] for i in range(0, len(images), batch)]
        return {"number": len(self.batches)}

    def prepare_for(self, training: bool) -> None:
        """Set the mode of the model, and make an optimizer if it trains."""
        model = self.detector.model.train(training)
        if training:
            trained = [p for p in model.parameters() if p.requires_grad]
            self.optimizer = torch.optim.SGD(trained, momentum=0.9, weight_decay=1e-4)

    def make_weights(self, path: str) -> dict:
        """Draw weights under which every layer matters for the first batch, and save them."""
        self.detector.standardize_weights(self.batches[0])
        self.detector.save(path)
        return {}

    def prepare_inference(self) -> dict:
        """Make our models ready for inference, as their configs say."""
        self.detector.prepare_inference()
        return {}

    def set(self, quantity: str, value: int) -> dict:
        """Set the number of "proposals", "detections" or "stages"."""
        getattr(self.detector, f"set_{quantity}")(value)
        return {}

    def seconds(self, index: int) -> dict:
        """Answer the "seconds" of a batch."""
        return {"seconds": seconds_of(self.prepare(index, Parts()), self.device)}

    def parts(self, index: int) -> dict:
        """Answer the "seconds" of each part of a batch."""
        parts = Parts(self.device)
        return {"seconds": parts.measure(self.prepare(index, parts))}

    def mask_rois(self, index: int) -> dict:
        """Answer the "number" of RoIs for which a batch's masks are computed."""
        rois = []
        hooks = [
            module.register_forward_pre_hook(lambda _module, inputs: rois.append(len(inputs[0])))
            for name, module in self.detector.model.named_modules()
            if "mask_head" in name and name.endswith(("deconv", "upsample"))
        ]
        self.prepare(index, Parts())()
        for hook in hooks:
            hook.remove()
        return {"number": sum(rois)}

    def detections(self, path: str) -> dict:
        """Save what was found in the last batch; answer the "number" found in each image."""
        fields = [{k: v.cpu() for k, v in self.detector.fields(f).items()} for f in self.found]
        torch.save(fields, path)
        return {"number": [len(f["scores"]) for f in fields]}

    def peak(self) -> dict:
        """Answer the most memory that this process has had, in "bytes"."""
        if self.device == "cuda":
            return {"bytes": torch.cuda.max_memory_allocated()}
        # Not getrusage: what it says starts at the size of the parent process.
        status = Path("/proc/self/status").read_text().split()
        return {"bytes": 1024 * int(status[status.index("VmHWM:") + 1])}

    def prepare(self, index: int, parts: Parts):
        """Return the function to time for a batch, with its inputs ready and its parts watched."""
        detector = self.detector
        inputs = copy.deepcopy(detector.inputs(self.batches[index]))
        detector.watch(parts)
        self.found = []  # frees memory
        if detector.model.training:
            step = TrainingStep(
                lambda: detector.losses(inputs), self.optimizer, self.device, self.amp
            )
            parts.watch(BACKWARD, step, "backward")
            parts.watch(UPDATE, step, "update")
            return step

        def detect():
            with torch.no_grad(), torch.autocast(self.device, torch.float16, enabled=self.amp):
                self.found = detector.detect(inputs)

        return detect


def main() -> None:
    arguments = json.loads(sys.argv[1])
    torch.set_num_threads(arguments.pop("threads"))
    # Whatever else is printed goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(**arguments)
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(worker, request.pop("do"))(**request)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
