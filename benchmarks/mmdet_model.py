"""MMDetection's published HTC, as benchmarks run it.

It needs the packages of another environment: MMDetection 3.3.0, mmcv 2.x and mmengine.
"""

from __future__ import annotations

from pathlib import Path

import mmcv
import torch

mmcv.__version__ = min(mmcv.__version__, "2.1.0")  # mmdet 3.3.0 asks for < 2.2.0; 2.2.0 works
import mmdet  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.structures.mask import BitmapMasks  # noqa: E402
from mmdet.utils import register_all_modules  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.runner import save_checkpoint  # noqa: E402
from mmengine.structures import InstanceData, PixelData  # noqa: E402
from standardized_weights import standardize_weights  # noqa: E402
from timing import BACKBONE, BOXES, MASKS, PASTE, RPN, SEMANTIC, Parts  # noqa: E402

CONFIG = "htc/htc_r50_fpn_1x_coco.py"


class MMDetModel:
    """The model of `CONFIG`, with the methods of `Detectron2Model`."""

    def __init__(self, weights: str | None, device: str):
        """
        Args:
            weights: MMDetection's checkpoint; the initial weights, of seed 0, if None.
            device: "cpu" or "cuda".
        """
        register_all_modules()
        config = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs" / CONFIG)
        config.model.backbone.init_cfg = None
        torch.manual_seed(0)
        self.model = MODELS.build(config.model).eval()
        if weights:
            self.model.load_state_dict(torch.load(weights, weights_only=True)["state_dict"])
        self.model.to(device)

    def standardize_weights(self, images: list[dict]) -> None:
        standardize_weights(self.model, lambda: self.detect(self.inputs(images[:1])))

    def prepare_inference(self) -> None:
        """Nothing: MMDetection infers as it is."""

    def save(self, path: str) -> None:
        meta = {"mmdet_version": mmdet.__version__}
        save_checkpoint({"meta": meta, "state_dict": self.model.state_dict()}, path)

    def inputs(self, images: list[dict]) -> dict:
        """Return what the model's data_preprocessor takes, as PackDetInputs does."""
        samples = []
        for image in images:
            height, width = image["image"].shape[-2:]
            sample = DetDataSample(
                metainfo={
                    "img_shape": (height, width),
                    "ori_shape": (image["height"], image["width"]),
                    "scale_factor": (width / image["width"], height / image["height"]),
                }
            )
            if self.model.training:
                sample.gt_instances = InstanceData(
                    bboxes=image["boxes"],
                    labels=image["classes"],
                    masks=BitmapMasks(image["bitmasks"].numpy(), height, width),
                )
                sample.gt_sem_seg = PixelData(sem_seg=image["sem_seg"][None])
            samples.append(sample)
        # RGB to BGR
        return {"inputs": [image["image"].flip(0) for image in images], "data_samples": samples}

    def detect(self, inputs: dict) -> list:
        return [sample.pred_instances for sample in self.model.test_step(inputs)]

    def losses(self, inputs: dict) -> dict[str, torch.Tensor]:
        data = self.model.data_preprocessor(inputs, training=True)
        loss, _ = self.model.parse_losses(self.model(**data, mode="loss"))
        return {"loss": loss}

    @staticmethod
    def fields(instances) -> dict[str, torch.Tensor]:
        fields = {key: instances[key] for key in ("scores", "labels", "masks")}
        return {"boxes": instances.bboxes, **fields}

    def watch(self, parts: Parts) -> None:
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
