"""MMDetection's published HTC, in MMDetection's environment (3.3.0, mmcv 2.x and mmengine)."""

from pathlib import Path

import mmcv
import torch

mmcv.__version__ = min(mmcv.__version__, "2.1.0")  # mmdet 3.3.0 asks for < 2.2.0; 2.2.0 works
import mmdet  # noqa: E402
from lively_weights import make_lively  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmdet.utils import register_all_modules  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.runner import save_checkpoint  # noqa: E402
from torch import Tensor, nn  # noqa: E402

CONFIG = "htc/htc_r50_fpn_1x_coco.py"
ENVIRONMENT = f"mmdet {mmdet.__version__}, torch {torch.__version__}"


def build(seed: int = 0) -> nn.Module:
    """The model of the config with initial weights, in eval mode."""
    register_all_modules()
    config = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs" / CONFIG)
    config.model.backbone.init_cfg = None
    torch.manual_seed(seed)
    return MODELS.build(config.model).eval()


def liven_up(model: nn.Module, photograph: tuple[Tensor, tuple[int, int]]) -> None:
    """Give the model lively random weights, see `make_lively`."""
    data = model.data_preprocessor(as_inputs([photograph]))
    make_lively(model, lambda: model.predict(data["inputs"], data["data_samples"]))


def save(model: nn.Module, path: Path) -> None:
    """Write an MMDetection checkpoint."""
    meta = {"mmdet_version": mmdet.__version__}
    save_checkpoint({"meta": meta, "state_dict": model.state_dict()}, str(path))


def read(path: str, short_edge: int) -> tuple[Tensor, tuple[int, int]]:
    """As the test pipeline of the config: LoadImageFromFile, Resize((1333, 800)).

    Returns:
        (3, height, width) uint8 BGR pixels, and height and width of the photograph.
    """
    original = mmcv.imread(path)
    image = mmcv.imrescale(original, (1333, short_edge))
    return torch.from_numpy(image.transpose(2, 0, 1).copy()), original.shape[:2]


def as_inputs(photographs: list[tuple[Tensor, tuple[int, int]]]) -> dict:
    """As PackDetInputs: what the model's data_preprocessor takes, of BGR pixels and sizes."""
    samples = []
    for pixels, (height, width) in photographs:
        resized_height, resized_width = pixels.shape[-2:]
        samples.append(
            DetDataSample(
                metainfo={
                    "img_shape": (resized_height, resized_width),
                    "ori_shape": (height, width),
                    "scale_factor": (resized_width / width, resized_height / height),
                }
            )
        )
    return {"inputs": [pixels for pixels, _ in photographs], "data_samples": samples}
