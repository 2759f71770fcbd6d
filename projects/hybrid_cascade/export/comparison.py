"""Compare what a graph detects with what its model detects, field by field.

Shapes: D detections of the image, H x W the size of the image that the model sees.
"""

import math
from collections.abc import Callable
from copy import deepcopy
from itertools import chain

import torch
from detectron2.export.flatten import flatten_to_tuple
from detectron2.structures import Instances
from torch import Tensor, nn

from ..modeling import FusedROIPooler
from .detection import detect, inputs_of

Graph = Callable[..., tuple[Tensor, ...]]


def largest_differences(
    model: nn.Module, graph: Graph, image: Tensor, output_size: tuple[int, int] | None = None
) -> dict[str, float]:
    """Return how far a graph's outputs are from the model's, field by field.

    The model pools RoIs as the graph does, see `pool_with_torchvision`. Detections whose scores
    are the same up to rounding may stand in another order in the graph's outputs: each of the
    model's is compared with the nearest box of its class.

    Args:
        model: what the graph was traced from, in eval mode.
        graph: takes the image, and the output size if there is one, and returns what `trace` says.
        image: (3, H, W).
        output_size: (height, width) of the output, for a graph that pastes masks. The model then
            postprocesses as Detectron2 does.

    Returns:
        Name of a field -> its largest absolute difference; of pasted masks, the number of pixels
        that differ by that of the pixels in the model's masks. Infinity if shapes or types differ,
        or if there are values that are not numbers.
    """
    with torch.no_grad():
        instances = _detect(pool_with_torchvision(model), image, output_size)
        found = graph(*inputs_of(image, output_size))
    names = [*sorted(instances.get_fields()), "image_size"]
    # On the CPU, because the model's image size is there and the graph's may not be.
    expected = [x.cpu() for x in flatten_to_tuple(instances)[0]]
    found = dict(zip(names, (x.cpu() for x in found), strict=True))
    expected = dict(zip(names, expected, strict=True))
    order = _same_order(expected, found)
    found = {name: x if name == "image_size" else x[order] for name, x in found.items()}
    return {name: _difference(expected[name], found[name]) for name in names}


def _detect(model: nn.Module, image: Tensor, output_size: tuple[int, int] | None) -> Instances:
    if output_size is None:
        return detect(model, [{"image": image}])[0]
    height, width = output_size
    return model([{"image": image, "height": height, "width": width}])[0]["instances"]


def _same_order(expected: dict[str, Tensor], found: dict[str, Tensor]) -> Tensor | slice:
    """Return the index that brings the graph's detections in the model's order.

    It is a slice of all if they can't be paired.
    """
    boxes = expected["pred_boxes"], found["pred_boxes"]
    if boxes[0].shape != boxes[1].shape or not len(boxes[0]):
        return slice(None)
    distances = torch.cdist(*(x.double() for x in boxes), p=math.inf)
    if "pred_classes" in expected:
        differ = expected["pred_classes"][:, None] != found["pred_classes"]
        distances = distances.masked_fill(differ, math.inf)
    order = distances.argmin(dim=1)
    return order if len(order.unique()) == len(order) else slice(None)


def _difference(x: Tensor, y: Tensor) -> float:
    if x.shape != y.shape or x.dtype != y.dtype:
        return math.inf
    if x.dtype == torch.bool:
        return ((x != y).sum() / x.sum().clamp(min=1)).item()
    difference = (x.double() - y.double()).abs().nan_to_num(math.inf)
    return difference.max().item() if difference.numel() else 0.0


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
