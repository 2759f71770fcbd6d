"""A process with one model in it, which models.py starts, in this environment or MMDetection's.

Its argument is a JSON object: "kind" ("ours", "detectron2" or "mmdet"), "config" and "settings" of
ours, "weights" (a file, or null), "threads", "device", "amp". It answers a line of JSON on stdout
to each line of JSON on stdin, whose "do" is the name of a method of `Worker`, the rest its
arguments.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path

import torch
from lively_weights import make_lively
from timing import Parts, TrainingStep, seconds_of

BACKBONE, SEMANTIC, RPN, BOXES, MASKS = "backbone + FPN", "semantic", "RPN", "boxes", "masks"
PASTE, BACKWARD, UPDATE = "paste", "backward", "SGD"


class Detectron2Model:
    """A model of Detectron2's classes, be they its own or this project's."""

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.roi_heads = model.roi_heads

    @classmethod
    def of_config(
        cls,
        config: str,
        settings: list[str],
        one_mask_head: bool,
        weights: str | None,
        device: str,
    ):
        from hybrid_cascade.engine import build_model, load_config, load_weights

        torch.manual_seed(0)
        config = load_config(config, [*settings, f"train.device={device}"])
        if one_mask_head:
            heads = config.model.roi_heads
            heads.update(mask_stages="last", mask_heads=heads.mask_heads[:1])
        model = build_model(config)
        if weights:
            load_weights(model, weights)
        return cls(model)

    @classmethod
    def cascade_of_detectron2(cls, weights: str, device: str):
        """Detectron2's Cascade Mask R-CNN: its model_zoo's, on the backbone of the others.

        That is torchvision's ResNet, RGB images, two frozen stages as in Detectron2's own configs.
        """
        from detectron2.config import instantiate
        from detectron2.model_zoo import get_config

        config = get_config("common/models/cascade_rcnn.py").model
        constants = get_config("common/data/constants.py").constants
        config.backbone.bottom_up.stages.stride_in_1x1 = False
        config.backbone.bottom_up.freeze_at = 2
        config.pixel_mean = constants.imagenet_rgb256_mean
        config.pixel_std = constants.imagenet_rgb256_std
        config.input_format = "RGB"
        model = instantiate(config).eval()
        model.load_state_dict(torch.load(weights, weights_only=True)["model"])
        return cls(model.to(device))

    def liven_up(self, photographs: list[dict]) -> None:
        make_lively(self.model, lambda: self.model(self.inputs(photographs)))

    def save(self, path: str) -> None:
        torch.save({"model": self.model.state_dict()}, path)

    def inputs(self, photographs: list[dict]) -> list[dict]:
        from detectron2.structures import Boxes, Instances, PolygonMasks

        inputs = []
        for photograph in photographs:
            one = {key: photograph[key] for key in ("image", "height", "width")}
            if self.model.training:
                one["sem_seg"] = photograph["sem_seg"]
                one["instances"] = Instances(
                    tuple(photograph["image"].shape[-2:]),
                    gt_boxes=Boxes(photograph["boxes"]),
                    gt_classes=photograph["classes"],
                    gt_masks=PolygonMasks(
                        [[p.numpy() for p in polygons] for polygons in photograph["polygons"]]
                    ),
                )
            inputs.append(one)
        return inputs

    def detect(self, inputs: list[dict]) -> list:
        return [output["instances"] for output in self.model(inputs)]

    def losses(self, inputs: list[dict]) -> dict[str, torch.Tensor]:
        from detectron2.utils.events import EventStorage

        with EventStorage():
            return self.model(inputs)

    @staticmethod
    def fields(found) -> dict[str, torch.Tensor]:
        return {
            "boxes": found.pred_boxes.tensor,
            "scores": found.scores,
            "labels": found.pred_classes,
            "masks": found.pred_masks,
        }

    def watch(self, parts: Parts) -> None:
        """Say which methods the parts are."""
        from detectron2.modeling import GeneralizedRCNN

        model = self.model
        parts.watch(BACKBONE, model.backbone, "forward")
        parts.watch(RPN, model.proposal_generator, "forward")
        parts.watch(BOXES, self.roi_heads, "forward")
        parts.watch(MASKS, self.roi_heads, "_forward_mask")
        parts.watch(PASTE, GeneralizedRCNN, "_postprocess")
        if hasattr(model, "semantic_branch"):
            parts.watch(SEMANTIC, model.semantic_branch, "forward")
            parts.watch(SEMANTIC, model, "semantic_targets")
        if hasattr(self.roi_heads, "_mask_loss"):
            parts.watch(MASKS, self.roi_heads, "_mask_loss")

    def set_proposals(self, number: int) -> None:
        rpn = self.model.proposal_generator
        rpn.pre_nms_topk = rpn.post_nms_topk = {True: number, False: number}

    def set_detections(self, number: int) -> None:
        for predictor in self.roi_heads.box_predictor:
            predictor.test_topk_per_image = number

    def set_stages(self, number: int) -> None:
        if hasattr(self.roi_heads, "test_stages"):
            self.roi_heads.test_stages = number
        else:
            self.roi_heads.num_cascade_stages = number


class MMDetModel:
    """MMDetection's published HTC."""

    def __init__(self, weights: str | None, device: str):
        import mmdet_htc

        self.project = mmdet_htc
        self.model = mmdet_htc.build()
        if weights:
            self.model.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
        self.model.to(device)

    def liven_up(self, photographs: list[dict]) -> None:
        self.project.liven_up(self.model, self._pixels(photographs[0]))

    def save(self, path: str) -> None:
        self.project.save(self.model, Path(path))

    @staticmethod
    def _pixels(photograph: dict) -> tuple[torch.Tensor, tuple[int, int]]:
        size = (photograph["height"], photograph["width"])
        return photograph["image"].flip(0), size  # RGB to BGR

    def inputs(self, photographs: list[dict]) -> dict:
        from mmdet.structures.mask import BitmapMasks
        from mmengine.structures import InstanceData, PixelData

        data = self.project.as_inputs([self._pixels(p) for p in photographs])
        if self.model.training:
            for sample, photograph in zip(data["data_samples"], photographs, strict=True):
                sample.gt_instances = InstanceData(
                    bboxes=photograph["boxes"],
                    labels=photograph["classes"],
                    masks=BitmapMasks(photograph["bitmasks"].numpy(), *sample.img_shape),
                )
                sample.gt_sem_seg = PixelData(sem_seg=photograph["sem_seg"][None])
        return data

    def detect(self, inputs: dict) -> list:
        return [sample.pred_instances for sample in self.model.test_step(inputs)]

    def losses(self, inputs: dict) -> dict[str, torch.Tensor]:
        data = self.model.data_preprocessor(inputs, training=True)
        loss, _ = self.model.parse_losses(self.model(**data, mode="loss"))
        return {"loss": loss}

    @staticmethod
    def fields(found) -> dict[str, torch.Tensor]:
        fields = {key: found[key] for key in ("scores", "labels", "masks")}
        return {"boxes": found.bboxes, **fields}

    def watch(self, parts: Parts) -> None:
        """Say which methods the parts are."""
        model, heads = self.model, self.model.roi_head
        parts.watch(BACKBONE, model, "extract_feat")
        for method in ("predict", "loss_and_predict"):
            parts.watch(RPN, model.rpn_head, method)
        for method in ("forward", "loss"):
            parts.watch(SEMANTIC, heads.semantic_head, method)
        for method in ("predict", "loss"):
            parts.watch(BOXES, heads, method)
        for method in ("predict_mask", "mask_loss"):
            parts.watch(MASKS, heads, method)
        parts.watch(PASTE, heads.mask_head[-1], "predict_by_feat")

    def set_proposals(self, number: int) -> None:
        test = self.model.rpn_head.test_cfg
        test.nms_pre = test.max_per_img = number

    def set_detections(self, number: int) -> None:
        self.model.roi_head.test_cfg.max_per_img = number


class Worker:
    """The requests that a process answers."""

    def __init__(self, kind: str, weights: str | None, device: str, amp: bool, **ours):
        self.device, self.amp = device, amp
        if kind == "ours":
            self.detector = Detectron2Model.of_config(**ours, weights=weights, device=device)
        elif kind == "detectron2":
            self.detector = Detectron2Model.cascade_of_detectron2(weights, device)
        else:
            self.detector = MMDetModel(weights, device)
        self.batches = []
        self.found = []

    def load(self, data: str, batch: int, training: bool) -> dict:
        """Load photographs; "number" of batches."""
        photographs = torch.load(data, weights_only=True)
        model = self.detector.model.train(training)
        if training:
            trained = [p for p in model.parameters() if p.requires_grad]
            self.optimizer = torch.optim.SGD(trained, momentum=0.9, weight_decay=1e-4)
        self.batches = [photographs[i : i + batch] for i in range(0, len(photographs), batch)]
        return {"number": len(self.batches)}

    def make_weights(self, path: str) -> dict:
        """Draw lively weights with the first batch, save them."""
        self.detector.liven_up(self.batches[0])
        self.detector.save(path)
        return {}

    def set(self, knob: str, value: int) -> dict:
        getattr(self.detector, f"set_{knob}")(value)
        return {}

    def seconds(self, index: int) -> dict:
        """Seconds of a batch."""
        return {"seconds": seconds_of(self._work(index, Parts()), self.device)}

    def parts(self, index: int) -> dict:
        """Seconds of the parts of a batch, and "mask_rois", how many RoIs its masks are for."""
        parts = Parts(self.device)
        work = self._work(index, parts)
        rois = []
        hooks = [
            module.register_forward_pre_hook(lambda _module, inputs: rois.append(len(inputs[0])))
            for name, module in self.detector.model.named_modules()
            if "mask_head" in name and name.endswith(("deconv", "upsample"))
        ]
        seconds = parts.measure(work)
        for hook in hooks:
            hook.remove()
        return {"seconds": seconds, "mask_rois": sum(rois)}

    def detections(self, path: str) -> dict:
        """Save what the last batch has; "number" of detections in each photograph."""
        fields = [{k: v.cpu() for k, v in self.detector.fields(f).items()} for f in self.found]
        torch.save(fields, path)
        return {"number": [len(f["scores"]) for f in fields]}

    def peak(self) -> dict:
        """The most memory that this process has had, "bytes"."""
        if self.device == "cuda":
            return {"bytes": torch.cuda.max_memory_allocated()}
        # Not getrusage: what it says starts at the size of the parent process.
        status = Path("/proc/self/status").read_text().split()
        return {"bytes": 1024 * int(status[status.index("VmHWM:") + 1])}

    def _work(self, index: int, parts: Parts):
        """What is timed, with everything prepared; its parts are watched."""
        detector = self.detector
        inputs = copy.deepcopy(detector.inputs(self.batches[index]))
        detector.watch(parts)
        self.found = []  # makes room
        if not detector.model.training:

            def detect():
                with (
                    torch.no_grad(),
                    torch.autocast(self.device, torch.float16, enabled=self.amp),
                ):
                    self.found = detector.detect(inputs)

            return detect
        step = TrainingStep(lambda: detector.losses(inputs), self.optimizer, self.device, self.amp)
        parts.watch(BACKWARD, step, "backward")
        parts.watch(UPDATE, step, "update")
        return step


def main() -> None:
    spec = json.loads(sys.argv[1])
    torch.set_num_threads(spec.pop("threads"))
    # Whatever else is printed goes to stderr.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(**spec)
    for line in sys.stdin:
        request = json.loads(line)
        answer = getattr(worker, request.pop("do"))(**request)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
