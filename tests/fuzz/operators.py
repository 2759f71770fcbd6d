"""Calls of operators with one fault each, through Python and straight to the compiled operators.

Whatever an operator makes of odd values that it takes, its results and gradients have to be finite.
"""

import random
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.structures import Instances
from torch import Tensor

from hybrid_cascade.layers import pyramid_roi_align, roi_warp
from hybrid_cascade.layers.deform_conv import ModulatedDeformConv
from hybrid_cascade.layers.extension import compiled_devices
from hybrid_cascade.layers.soft_nms import soft_nms
from hybrid_cascade.modeling.mnc import mask_voting

from .case import Case

NAN, INF = float("nan"), float("inf")
SIDES = [0, -1, 2**31, 2**40, 2**62, 2.5, "7", None]

# Faults of any tensor, each with what the message may name besides the argument.
TENSOR_FAULTS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "sparse": (lambda t: t.to_sparse(), "dense|sparse|Sparse"),
    "on the meta device": (lambda t: t.to("meta"), "meta"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), "float|Float8|int64"),
    "complex": (lambda t: t.to(torch.complex64), "float|real|Complex|int64"),
    "with a dimension more": (lambda t: t[None], ""),
    "with a dimension less": (lambda t: t[0], ""),
    "too long": (lambda t: torch.cat([t, t[:1]]), ""),
    "too short": (lambda t: t[:-1], ""),
    "no tensor": (lambda t: t.tolist(), "tensor|Tensor|list"),
    "None": (lambda t: None, "None|tensor"),
}
# Not faults: other numbers of images and boxes, and masks that are converted.
FINE = {
    ("roi_warp", "input", "too long"),
    ("roi_warp", "boxes", "too long"),
    ("roi_warp", "boxes", "too short"),
    ("mask_voting", "masks", "float8"),
    ("modulated_deform_conv", "mask", "None"),
}
DECIDED = {
    "too long": "images and boxes may be of any number",
    "too short": "images and boxes may be of any number",
    "None": "without a mask, all weights are 1",
    "float8": "mask_voting converts masks of any real type to float32",
}
ODD_BOXES = [NAN, INF, -INF, 1e9, 1e30, -1e30, 0.0, -5.0]


def make_case(random: random.Random) -> Case:
    """Return a case."""
    makers = [_roi_warp, _pyramid_roi_align, _deform_conv, _soft_nms, _mask_voting]
    makers += [_compiled_roi_warp, _compiled_pyramid_roi_align] if compiled_devices else []
    return random.choice(makers)(random)


def make_compiled_case(random: random.Random) -> Case:
    """Return a case of an operator that has CUDA kernels, and is compiled."""
    makers = [_roi_warp, _pyramid_roi_align, _compiled_roi_warp, _compiled_pyramid_roi_align]
    return random.choice(makers)(random)


def _case(
    name: str,
    function: Callable,
    arguments: dict,
    change: dict,
    names: str | None,
    why: str = "",
) -> Case:
    """Return a case that calls a function with some arguments replaced."""
    arguments = {**arguments, **change}

    def check(folder: Path) -> None:
        result = function(**arguments)
        if isinstance(result, Tensor) and result.requires_grad:
            result.sum().backward()
        if names is None:
            _check_finite(result, arguments)

    return Case(f"operators: {name}", check, names, why=why)


def _check_finite(result: Tensor | tuple | Instances, arguments: dict) -> None:
    results = {"result": result} if isinstance(result, Tensor) else {}
    if isinstance(result, tuple):
        results = dict(enumerate(result))
    elif isinstance(result, Instances):
        results = {"scores": result.scores, "boxes": result.pred_boxes.tensor}
    gradients = {
        f"gradient of {name}": value.grad
        for name, value in arguments.items()
        if isinstance(value, Tensor) and value.is_leaf and value.grad is not None
    }
    for name, value in {**results, **gradients}.items():
        assert value.isfinite().all(), f"{name}: {value}"


def _tensor_fault(
    random: random.Random, function: Callable, arguments: dict, tensors: list[str]
) -> tuple[str, dict, str | None, str]:
    name = random.choice(tensors)
    fault = random.choice(list(TENSOR_FAULTS))
    change, also = TENSOR_FAULTS[fault]
    operator = function.__name__.removeprefix("ops.")
    # Where lengths differ, the message may name any of the tensors.
    expected = "|".join([*tensors, also] if also else tensors)
    is_fine = (operator, name, fault) in FINE
    title, change = f"{function.__name__}: {name} {fault}", {name: change(arguments[name])}
    return (title, change, None, DECIDED[fault]) if is_fine else (title, change, expected, "")


def _draw(
    random: random.Random,
    function: Callable,
    arguments: dict,
    tensors: list[str],
    faults: list[tuple[str, object, str]],
    odd: list[tuple[str, object]],
) -> Case:
    """Draw a fault of a tensor, one of `faults`, or one of `odd` (fine, whatever comes out)."""
    which = random.random()
    if which < 0.4:
        name, change, names, why = _tensor_fault(random, function, arguments, tensors)
        return _case(name, function, arguments, change, names, why)
    if which < 0.85 or not odd:
        name, value, names = random.choice(faults)
        title = f"{function.__name__}: {name}={_short(value)}"
        return _case(title, function, arguments, {name: value}, names)
    name, value = random.choice(odd)
    title = f"{function.__name__}: {name} odd, {_short(value)}"
    why = "docstrings allow it: boxes and offsets that are NaN or far out, very large numbers"
    return _case(title, function, arguments, {name: value}, None, why)


def _short(value: object) -> str:
    return f"{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]


def _boxes(random: random.Random, number: int = 3) -> Tensor:
    boxes = torch.tensor([[random.uniform(0, 6) for _ in range(4)] for _ in range(number)])
    return torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)


def _rois(random: random.Random) -> Tensor:
    return torch.cat([torch.tensor([[0.0], [1.0], [1.0]]), _boxes(random)], dim=1)


def _with_odd_value(random: random.Random, tensor: Tensor, first_column: int) -> Tensor:
    tensor = tensor.clone()
    column = random.randrange(first_column, tensor.shape[1])
    tensor[random.randrange(len(tensor)), column] = random.choice(ODD_BOXES)
    return tensor


def _wrong_image(random: random.Random, rois: Tensor) -> Tensor:
    rois = rois.clone()
    rois[1, 0] = random.choice([2.0, -1.0, NAN, 1e20, INF])
    return rois


def _roi_warp(random: random.Random) -> Case:
    rois = _rois(random)
    layout = random.choice([torch.contiguous_format, torch.channels_last])  # read where it is
    features = torch.rand(2, random.choice([3, 64, 70]), 8, 9).contiguous(memory_format=layout)
    arguments = {
        "input": features.requires_grad_(random.random() < 0.5),
        "boxes": rois,
        "output_size": random.choice([4, (4, 6)]),
        "spatial_scale": random.choice([1.0, 0.25]),
        "max_pool": random.choice([1, 2]),
        "aligned": random.random() < 0.5,
    }
    faults = [("output_size", value, "output_size") for value in SIDES]
    faults += [("output_size", (4, value), "output_size") for value in SIDES]
    faults += [("output_size", (4, 4, 4), "output_size")]
    faults += [("spatial_scale", value, "spatial_scale") for value in (NAN, INF, 0.0, -1.0, "1")]
    faults += [("max_pool", value, "max_pool") for value in (0, -1, 17, 2**40, 3, 2.0, None)]
    faults += [("boxes", _wrong_image(random, rois), "image index|index")]
    odd = [("boxes", _with_odd_value(random, rois, 1)), ("boxes", rois[:0])]
    odd += [("spatial_scale", value) for value in (1e300, 1e-300)]
    return _draw(random, roi_warp, arguments, ["input", "boxes"], faults, odd)


def _pyramid(random: random.Random) -> dict:
    channels = random.choice([3, 4])  # the latter are read at once on CUDA
    return {
        "maps": [torch.rand(2, channels, 8, 9), torch.rand(2, channels, 4, 5)],
        "boxes": _rois(random),
        "levels": torch.tensor([[0, 1], [1, -1], [0, 7]]),
        "scales": [0.5, 0.25],
    }


def _pyramid_roi_align(random: random.Random) -> Case:
    arguments = {**_pyramid(random), "output_size": (3, 2), "pooled_sizes": [(3, 2), (6, 4)]}
    maps = arguments["maps"]
    faults = [("output_size", (2, value), "output_size") for value in SIDES]
    faults += [("pooled_sizes", [(2, value)] * 2, "pooled_sizes") for value in SIDES]
    faults += [("pooled_sizes", [(2, 2)], "pooled_sizes")]
    faults += [("scales", [value, 0.5], "scales") for value in (NAN, INF, 0.0, -1.0, "1")]
    faults += [("scales", [0.5], "scales"), ("scales", [], "scales")]
    ratios = (2**31, 2**40, [0], [0, 2**40], [0, 0.5])
    faults += [("sampling_ratio", value, "sampling_ratio") for value in ratios]
    faults += [("maps", value, "maps") for value in ([], maps[:1] + [torch.rand(2, 5, 4, 5)])]
    faults += [("maps", [maps[0], TENSOR_FAULTS[f][0](maps[1])], "maps") for f in TENSOR_FAULTS]
    faults += [("boxes", _wrong_image(random, arguments["boxes"]), "image index")]
    odd = [("boxes", _with_odd_value(random, arguments["boxes"], 1))]
    odd += [("levels", torch.full((3, 2), 2**62)), ("sampling_ratio", -1)]
    odd += [("scales", [1e300, 1e-300])]
    return _draw(random, pyramid_roi_align, arguments, ["boxes", "levels"], faults, odd)


def _call(operator: str, *names: str) -> Callable:
    def function(**arguments):
        result = getattr(torch.ops.hybrid_cascade, operator)(*(arguments[n] for n in names))
        return result if isinstance(result, Tensor) else result[0]

    function.__name__ = f"ops.{operator}"
    return function


def _compiled_roi_warp(random: random.Random) -> Case:
    names = ["input", "boxes", "rows", "columns", "spatial_scale", "max_pool", "aligned", "keep"]
    arguments = dict(
        zip(names, [torch.rand(2, 3, 8, 9), _rois(random), 4, 4, 1.0, 2, False, True], strict=True)
    )
    faults = [("rows", value, "output_size|rows") for value in SIDES]
    faults += [("max_pool", value, "max_pool") for value in (0, -2, 17, 2**40)]
    faults += [("spatial_scale", value, "spatial_scale") for value in (NAN, INF, -1.0)]
    faults += [("boxes", _wrong_image(random, arguments["boxes"]), "index")]
    odd = [("boxes", _with_odd_value(random, arguments["boxes"], 1))]
    function = _call("roi_warp", *names)
    return _draw(random, function, arguments, ["input", "boxes"], faults, odd)


def _compiled_pyramid_roi_align(random: random.Random) -> Case:
    arguments = {
        **_pyramid(random),
        "bin_rows": [2, 3],
        "bin_columns": [2, 2],
        "sampling_ratios": [0, 2],
        "aligned": [True, False],
        "rows": 2,
        "columns": 2,
    }
    faults = [("rows", value, "output_size|rows") for value in SIDES]
    faults += [("bin_rows", [2, value], "pooled_sizes|bin_rows") for value in SIDES]
    faults += [("bin_columns", [2], "pooled size"), ("scales", [0.5, NAN], "scales")]
    faults += [("sampling_ratios", [0, 2**40], "sampling_ratio")]
    faults += [("maps", [], "maps"), ("boxes", _wrong_image(random, arguments["boxes"]), "index")]
    odd = [("boxes", _with_odd_value(random, arguments["boxes"], 1))]
    function = _call("pyramid_roi_align", *arguments)
    return _draw(random, function, arguments, ["boxes", "levels"], faults, odd)


def _deform_conv(random: random.Random) -> Case:
    settings = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 1, "padding": 0}
    settings |= {"dilation": 1, "groups": 2, "deformable_groups": 2}
    inputs = {
        "x": torch.rand(2, 4, 7, 5),
        "offset": torch.randn(2, 36, 5, 3, requires_grad=True),
        "mask": torch.rand(2, 18, 5, 3),
    }

    def modulated_deform_conv(x, offset, mask, **settings):
        return ModulatedDeformConv(**settings)(x, offset, mask)

    faults = []
    for name in settings:
        expected = "channels|groups" if "channels" in name or "groups" in name else name
        faults += [(name, value, expected) for value in (0, -1, 2.5, "2")]
    faults.remove(("padding", 0, "padding"))
    # What then does not fit may be named.
    faults += [(name, 2**40, f"{name}|offset|x of") for name in ("stride", "padding", "dilation")]
    faults += [("x", torch.rand(2, 5, 7, 5), "x must"), ("x", torch.rand(2, 4, 2, 2), "x of")]
    faults += [("x", inputs["x"].double(), "x is"), ("offset", torch.rand(2, 18, 5, 3), "offset")]
    faults += [("mask", torch.rand(2, 9, 5, 3), "mask"), ("stride", 2, "offset")]
    odd_offset = inputs["offset"].detach().flatten(1).clone()
    odd_offset = _with_odd_value(random, odd_offset, 0).view(2, 36, 5, 3).requires_grad_()
    odd = [("offset", odd_offset), ("mask", None)]
    arguments = {**settings, **inputs}
    return _draw(random, modulated_deform_conv, arguments, list(inputs), faults, odd)


def _soft_nms(random: random.Random) -> Case:
    arguments = {
        "boxes": _boxes(random),
        "scores": torch.rand(3),
        "classes": torch.tensor([0, 1, 0]),
        "method": random.choice(["linear", "gaussian"]),
    }
    faults = [("iou_thresh", value, "iou_thresh") for value in (NAN, INF, -0.1, 2.0)]
    faults += [("sigma", value, "sigma") for value in (NAN, 0.0, -1.0)]
    faults += [("score_thresh", value, "score_thresh") for value in (NAN, -1.0)]
    faults += [("method", value, "method") for value in ("hard", "", None, 3)]
    faults += [("scores", torch.tensor([0.5, value, 0.1]), "scores") for value in (NAN, -1.0)]
    faults += [("classes", torch.tensor([0, -1, 0]), "classes")]
    faults += [("classes", torch.tensor([0.0, 1.0, 0.0]), "classes")]
    large = torch.tensor([0, random.choice([10**9, 2**40, 2**63 - 1]), 0])
    odd = [("boxes", _with_odd_value(random, arguments["boxes"], 0)), ("score_thresh", 2.0)]
    odd += [("classes", large), ("sigma", INF), ("sigma", 1e-300)]
    return _draw(random, soft_nms, arguments, ["boxes", "scores", "classes"], faults, odd)


def _mask_voting(random: random.Random) -> Case:
    arguments = {
        "boxes": _boxes(random),
        "masks": torch.rand(3, 5, 5),
        "scores": torch.rand(3, 2),
        "image_size": (12, 14),
    }
    faults = [("nms_iou", value, "nms_iou") for value in (NAN, INF, -0.1, 2.0)]
    faults += [("merge_iou", value, "merge_iou") for value in (NAN, INF, -0.1, 2.0)]
    faults += [("mask_threshold", value, "mask_threshold") for value in (NAN, 0.0, -0.1, 2.0)]
    faults += [("score_thresh", value, "score_thresh") for value in (NAN, -1.0)]
    faults += [("topk", value, "topk") for value in (-1, 2.5, NAN, None)]
    faults += [
        ("image_size", (12, value), "image_size") for value in (0, -1, 2.5, "7", None, 2**40)
    ]
    faults += [("scores", torch.full((3, 2), value), "scores") for value in (NAN, -1.0)]
    odd = [("boxes", _with_odd_value(random, arguments["boxes"], 0)), ("topk", 0)]
    odd += [("topk", 2**40)]
    return _draw(random, mask_voting, arguments, ["boxes", "masks", "scores"], faults, odd)
