"""Export inference as TorchScript, by Detectron2's `TracingAdapter`.

Shapes: D detections of the image, H x W the size of the image that the model sees, M the side of
their masks.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import chain

import torch
import torchvision
from detectron2.export import TracingAdapter
from detectron2.export.flatten import flatten_to_tuple
from detectron2.export.torchscript_patch import patch_builtin_len
from detectron2.modeling import MViT, SwinTransformer
from detectron2.structures import Instances
from torch import Tensor, nn

from ..modeling import FusedROIPooler


def trace(model: nn.Module, image: Tensor) -> torch.jit.ScriptModule:
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

    Raises:
        ValueError: as `check_traceable`.
    """
    check_traceable(model)
    adapter = TracingAdapter(model, [{"image": image}], detect)
    with _scripted_batched_nms(), patch_builtin_len(), warnings.catch_warnings():
        # Tracing warns of each assertion about a shape, for example. Whether the graph is right
        # shows in `largest_differences`.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return torch.jit.trace(adapter, (image,), check_trace=False)


@contextmanager
def _scripted_batched_nms() -> Iterator[None]:
    """Let torchvision's `batched_nms` be recorded with its choice between two methods.

    In a trace it always tells classes apart by an offset of their boxes; otherwise it takes them
    one by one where boxes are many. An offset rounds IoUs differently, so that other boxes survive.
    The scripted function chooses each time that the graph runs. torchvision has no argument for
    this, and Detectron2 calls the function by its module, so it is replaced there while a model is
    traced.
    """
    module = torchvision.ops.boxes
    batched_nms = module.batched_nms
    module.batched_nms = torch.jit.script(batched_nms)
    try:
        yield
    finally:
        module.batched_nms = batched_nms


def check_traceable(model: nn.Module) -> None:
    """Raise a ValueError if the model is known to do something that a trace can't record.

    That is a loop or a branch that depends on the data, or an output beside instances.
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
    """Return how far a graph's outputs are from the model's, field by field.

    The model pools RoIs as the graph does, see `pool_with_torchvision`.

    Args:
        model: what the graph was traced from, in eval mode.
        graph: takes the image and returns what `trace` says.
        image: (3, H, W).

    Returns:
        Name of a field -> its largest absolute difference; infinity if shapes or types differ, or
        if there are values that are not numbers.
    """
    with torch.no_grad():
        [instances] = detect(pool_with_torchvision(model), [{"image": image}])
        found = graph(image)
    names = [*sorted(instances.get_fields()), "image_size"]
    expected, _ = flatten_to_tuple(instances)
    differences = {}
    for name, x, y in zip(names, expected, found, strict=True):
        if x.shape != y.shape or x.dtype != y.dtype:
            differences[name] = math.inf
        else:
            # On the CPU, because the model's image size is there and the graph's may not be.
            difference = (x.cpu().double() - y.cpu().double()).abs().nan_to_num(math.inf)
            differences[name] = difference.max().item() if len(difference) else 0.0
    return differences


def pool_with_torchvision(model: nn.Module) -> nn.Module:
    """Return a copy of the model that pools RoIs with torchvision, as a graph does.

    This project's operator rounds differently, and of two boxes with nearly the same score, the
    other one may then be suppressed. The copy has the model's own parameters and buffers.
    """
    tensors = {id(t): t for t in chain(model.parameters(), model.buffers())}
    model = deepcopy(model, memo=tensors)  # does not copy what is in the memo
    for module in model.modules():
        if isinstance(module, FusedROIPooler):
            module.in_one_pass = False
    return model


def detect(model: nn.Module, batched_inputs: list[dict]) -> list[Instances]:
    """Return what the model detects, before it is resized to an output size."""
    if hasattr(model, "inference"):
        return model.inference(batched_inputs, do_postprocess=False)
    return [x["instances"] for x in model(batched_inputs)]  # SSD
