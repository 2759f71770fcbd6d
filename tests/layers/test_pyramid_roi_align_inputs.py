"""What pyramid RoIAlign refuses, and with which words."""

import pytest
import torch

from hybrid_cascade.layers import pyramid_roi_align
from hybrid_cascade.layers.pyramid_roi_align import is_compiled

from .test_pyramid_roi_align import SCALES, levels_of, make_boxes, make_maps

pytestmark = [
    pytest.mark.skipif(not is_compiled, reason="it is not compiled"),
    pytest.mark.usefixtures("kernels"),
]


def call(**changes):
    boxes = make_boxes()
    args = dict(
        maps=make_maps(),
        boxes=boxes,
        levels=levels_of(boxes),
        scales=SCALES,
        output_size=(2, 2),
    )
    return pyramid_roi_align(**{**args, **changes})


@pytest.mark.parametrize(
    "changes, error, message",
    [
        (dict(scales=[1.0]), ValueError, "scales has 1 values for 3 maps"),
        (dict(sampling_ratio=[0]), ValueError, "sampling_ratio has 1 values for 3 maps"),
        (dict(aligned=[True]), ValueError, "aligned has 1 values for 3 maps"),
        (dict(pooled_sizes=[(2, 2)]), ValueError, "pooled_sizes has 1 values for 3 maps"),
        (dict(maps=[]), ValueError, "maps is empty"),
        (dict(scales=[1.0, 1.0, float("nan")]), ValueError, "scales must be positive.*nan"),
        (dict(scales=[1.0, 1.0, "1"]), TypeError, "scales must be a number, got '1'"),
        (dict(output_size=(2, 2**31)), ValueError, r"output_size must be in \[1, 1024\].*2147"),
        (dict(output_size=(2.0, 2)), TypeError, r"output_size must be whole.*2\.0"),
        (dict(pooled_sizes=[(2, 2)] * 2 + [(2, 2**40)]), ValueError, "pooled_sizes.*1099511627776"),
        (dict(sampling_ratio=2**40), ValueError, "sampling_ratio.*1024, got 1099511627776"),
        (dict(levels=torch.zeros(12, 2).long().to("meta")), ValueError, "levels is on meta"),
        (dict(boxes=torch.zeros(12, 5).to_sparse()), TypeError, "boxes must be dense"),
        (dict(maps=make_maps(dtype=torch.float32)), RuntimeError, "boxes must be float64 for maps"),
        (
            dict(maps=make_maps()[:2] + [torch.zeros(2, 4, 3, 3)]),
            RuntimeError,
            "same N, C and type",
        ),
        (dict(boxes=torch.zeros(12, 4, dtype=torch.float64)), RuntimeError, "boxes must be"),
        (dict(levels=torch.zeros(3, 2, dtype=torch.int64)), RuntimeError, "levels must be"),
        (dict(levels=torch.zeros(12, 2)), RuntimeError, "levels must be"),
        (dict(output_size=(0, 2)), ValueError, "output_size"),
        (dict(pooled_sizes=[(2, 2), (2, 2), (2, 0)]), ValueError, r"pooled_sizes.*\(2, 0\)"),
        (
            dict(boxes=torch.full((12, 5), 2.0, dtype=torch.float64)),
            (IndexError, RuntimeError),
            "image index",
        ),
    ],
)
def test_wrong_arguments_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        call(**changes)


@pytest.mark.parametrize(
    "index, value, message",
    [
        (3, [0.25, float("nan"), 0.1], "scales must be positive and finite, got nan"),
        (4, [2, 2, 2**40], "pooled_sizes must be in .1, 1024., got 1099511627776"),
        (6, [0, 2**40, 0], "sampling_ratio must be at most 1024, got 1099511627776"),
        (9, 2**31, "output_size must be in .1, 1024., got 2 x 2147483648"),
        (1, torch.zeros(12, 5, device="meta"), "boxes is on meta"),
    ],
)
def test_the_operator_checks_its_limits_itself(index, value, message):
    boxes = make_boxes()
    arguments = [make_maps(), boxes, levels_of(boxes), SCALES]
    arguments += [[2] * 3, [2] * 3, [0] * 3, [True] * 3, 2, 2]
    torch.ops.hybrid_cascade.pyramid_roi_align(*arguments)
    arguments[index] = value
    with pytest.raises((RuntimeError, ValueError), match=message):
        torch.ops.hybrid_cascade.pyramid_roi_align(*arguments)
