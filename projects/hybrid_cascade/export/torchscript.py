"""Export inference as TorchScript, by Detectron2's `TracingAdapter`.

Shapes: D detections of the image, H x W the size of the image that the model sees, M the side of
their masks.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torchvision
from detectron2.export.torchscript_patch import patch_builtin_len
from torch import Tensor, nn

from .detection import adapter_of, check_traceable, inputs_of


def trace(model: nn.Module, image: Tensor, paste_masks: bool = False) -> torch.jit.ScriptModule:
    """Return a graph that does to one image, of any size, what the model does.

    It takes (3, H, W) and returns the fields of the detections in alphabetical order and the size
    of the image: "pred_boxes" (D, 4), "pred_classes" (D,), with masks "pred_masks" (D, 1, M, M),
    "scores" (D,), "image_size" (2,). As without Detectron2's postprocessing, boxes are in pixels of
    this image, and masks are probabilities of the inside of their boxes.

    The graph runs without Python. It needs torchvision's operators and, where it was compiled when
    an MNC was traced, the library of this project's RoI warp. RoIs of the other models are pooled
    by torchvision.

    Args:
        model: in eval mode.
        image: (3, H, W), on the device of the model.
        paste_masks: the graph also takes a size, (2,) int64, (height, width), and postprocesses:
            boxes are in pixels of an output of this size, "pred_masks" are pasted into it,
            (D, height, width) of bool, and "image_size" is its size.

    Raises:
        ValueError: as `check_traceable`.
    """
    check_traceable(model)
    adapter = adapter_of(model, image, paste_masks)
    inputs = inputs_of(image, image.shape[1:] if paste_masks else None)
    scripted_nms = torch.jit.script(torchvision.ops.boxes.batched_nms)
    with batched_nms_replaced(scripted_nms), patch_builtin_len(), warnings.catch_warnings():
        # Tracing warns of each assertion about a shape, for example. Whether the graph is right
        # shows in `largest_differences`.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return torch.jit.trace(adapter, inputs, check_trace=False)


@contextmanager
def batched_nms_replaced(function: Callable) -> Iterator[None]:
    """Let another function take the place of torchvision's `batched_nms` while a model is traced.

    In a trace, it always tells classes apart by an offset of their boxes; otherwise it takes them
    one by one where boxes are many. An offset rounds IoUs differently, so that other boxes survive.
    The function should choose each time that the graph runs, as the scripted `batched_nms` does.
    torchvision has no argument for this, and Detectron2 calls the function by its module, so it is
    replaced there.
    """
    module = torchvision.ops.boxes
    batched_nms = module.batched_nms
    module.batched_nms = function
    try:
        yield
    finally:
        module.batched_nms = batched_nms
