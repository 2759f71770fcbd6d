"""Export inference as TorchScript, by Detectron2's `TracingAdapter`.

Shapes: h, w: size of the image that the network sees, R: detections, M: the side of their masks.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator
from unittest import mock

import torch
import torchvision
from detectron2.export import TracingAdapter
from detectron2.export.flatten import flatten_to_tuple
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.modeling import MViT, SwinTransformer
from detectron2.structures import Instances
from torch import Tensor, nn

from ..modeling import FusedROIPooler

# Modules that take numbers of boxes by `len`, which makes a Python number of what in a trace has to
# stay a tensor.
MODULES_WITH_LEN = ("hybrid_cascade.modeling.mnc.roi_heads",)


def trace(model: nn.Module, image: Tensor) -> torch.jit.ScriptModule:
    """A graph that does to one image, of any size, what the model does.

    It takes (3, h, w) and returns the fields of the detections in alphabetical order and the size
    of the image: "pred_boxes" (R, 4), "pred_classes" (R,), with masks "pred_masks" (R, 1, M, M),
    "scores" (R,), "image_size" (2,). As without Detectron2's postprocessing, boxes are in pixels of
    this image, and masks are probabilities of the inside of their boxes.

    The graph runs without Python. It needs torchvision's operators and, where it was compiled when
    an MNC was traced, the library of this project's RoI warp.

    Args:
        model: in eval mode.
        image: (3, h, w), on the device of the model.

    Raises:
        ValueError: as `check_traceable`.
    """
    check_traceable(model)
    adapter = TracingAdapter(model, [{"image": image}], detect)
    # In a trace, torchvision always tells classes apart by an offset of their boxes; otherwise it
    # takes them one by one where boxes are many. An offset rounds IoUs differently, so that other
    # boxes survive. The scripted function chooses each time that the graph runs.
    batched_nms = torch.jit.script(torchvision.ops.batched_nms)
    with (
        mock.patch("torchvision.ops.boxes.batched_nms", batched_nms),
        patch_builtin_len(MODULES_WITH_LEN),
        warnings.catch_warnings(),
    ):
        # Of each assertion about a shape, for example. `largest_differences` is the better judge.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return torch.jit.trace(adapter, (image,), check_trace=False)


def check_traceable(model: nn.Module) -> None:
    """Raise a ValueError if the model is known to do what no trace can record.

    That is what it repeats or skips as the data say, or returns beside instances.
    """
    heads = getattr(model, "roi_heads", None)
    if getattr(heads, "soft_nms", "none") != "none":
        raise ValueError(
            f"soft_nms={heads.soft_nms!r} loops until no box is left, which a trace cannot record:"
            " set model.roi_heads.soft_nms=none (MODEL.ROI_HTC_HEAD.SOFT_NMS none)"
        )
    if getattr(heads, "test_output", "") == "voting":
        raise ValueError(
            "MNC's mask voting visits the tiles of the image that have masks, which a trace cannot"
            " record: set model.roi_heads.test_output=nms (MODEL.ROI_MNC_HEAD.TEST_OUTPUT nms)"
        )
    for output in ("output_sem_seg", "output_panoptic_seg"):
        if getattr(model, output, False):
            raise ValueError(f"Instances are exported, nothing else: set model.{output}=False")
    if getattr(model, "proposal_generator", model) is None:
        raise ValueError("The model has no proposal_generator, and an image is its only input")
    for module in model.modules():
        if isinstance(module, (SwinTransformer, MViT)):
            raise ValueError(
                f"Detectron2's {type(module).__name__} computes with the size of the image in"
                " Python: a trace would be good for one size only"
            )


def largest_differences(model: nn.Module, graph: nn.Module, image: Tensor) -> dict[str, float]:
    """How far the outputs of a graph for an image (3, h, w) are from the model's, field by field.

    Infinity for a field of another shape or type, or of values that are not numbers.
    """
    with torch.no_grad(), pooled_by_torchvision(model):
        [instances] = detect(model, [{"image": image}])
        found = graph(image)
    names = [*sorted(instances.get_fields()), "image_size"]
    expected, _ = flatten_to_tuple(instances)
    differences = {}
    for name, x, y in zip(names, expected, found, strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            differences[name] = math.inf
        else:
            # On the CPU: there the model has the size, and the graph may have it elsewhere.
            difference = (x.cpu().double() - y.cpu().double()).abs().nan_to_num(math.inf)
            differences[name] = difference.max().item() if len(difference) else 0.0
    return differences


@contextlib.contextmanager
def pooled_by_torchvision(model: nn.Module) -> Iterator[None]:
    """RoIs are pooled as in a graph, for comparing the two.

    Our own operator rounds differently, and of two boxes with nearly the same score, the other one
    may then be suppressed.
    """
    with contextlib.ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, FusedROIPooler):
                stack.enter_context(mock.patch.object(module, "in_one_pass", False))
        yield


def detect(model: nn.Module, batched_inputs: list[dict]) -> list[Instances]:
    """What the model detects, before it is resized to an output size."""
    if hasattr(model, "inference"):
        return model.inference(batched_inputs, do_postprocess=False)
    return [x["instances"] for x in model(batched_inputs)]  # SSD
