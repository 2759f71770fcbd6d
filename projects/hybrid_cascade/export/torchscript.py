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

HARMLESS_WARNINGS = [
    # Of each assertion about a shape, for example. `largest_differences` tells what is wrong.
    ("", torch.jit.TracerWarning),
    # torch.export, which is to take their place, does not trace Detectron2's models.
    ("`torch.jit.* is deprecated", DeprecationWarning),
    ("You are using the legacy TorchScript-based ONNX export", DeprecationWarning),
    ("The feature will be removed", DeprecationWarning),
    # torchvision's boxes and transforms.
    ("To copy construct from a tensor", UserWarning),
    # It is wrong for negative indices. Here indices are classes, and positions in a tensor.
    ("Exporting aten::index operator of advanced indexing", UserWarning),
    # The graph computes them each time.
    ("Constant folding - Only steps=1 can be constant folded", UserWarning),
]


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
    with tracing(torch.jit.script(torchvision.ops.boxes.batched_nms)):
        return torch.jit.trace(adapter, inputs, check_trace=False)


@contextmanager
def tracing(batched_nms: Callable) -> Iterator[None]:
    """Prepare Detectron2 and torchvision for a trace, and leave out what torch warns of in it.

    Args:
        batched_nms: takes the place of torchvision's. In a trace, that one always tells classes
            apart by an offset of their boxes; otherwise it takes them one by one where boxes are
            many. An offset rounds IoUs differently, so that other boxes survive. This function
            should choose each time that the graph runs, as the scripted `batched_nms` does.
            torchvision has no argument for this, and Detectron2 calls the function by its module,
            so it is replaced there.
    """
    module = torchvision.ops.boxes
    replaced = module.batched_nms
    module.batched_nms = batched_nms
    try:
        with patch_builtin_len(), warnings.catch_warnings():
            for message, category in HARMLESS_WARNINGS:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        module.batched_nms = replaced
