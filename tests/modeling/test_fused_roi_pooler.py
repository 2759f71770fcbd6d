import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch.nn import functional as F
from torchvision.ops import roi_align

from hybrid_cascade.layers.roi_warp import compiled_devices
from hybrid_cascade.modeling import FusedROIPooler


def test_it_adds_semantic_features_pooled_to_the_size_of_the_others():
    pyramid, semantic = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 8, 8)
    boxes = torch.tensor([[3.0, 5, 40, 50], [10, 10, 20, 30]])
    pooler = FusedROIPooler(
        ROIPooler(7, [1 / 4], 0, "ROIAlignV2"), ROIPooler(14, [1 / 8], 0, "ROIAlignV2")
    )
    expected = roi_align(pyramid, [boxes], 7, 1 / 4, 0, aligned=True)
    context = roi_align(semantic, [boxes], 14, 1 / 8, 0, aligned=True)
    expected = expected + context.reshape(2, 4, 7, 2, 7, 2).mean((3, 5))
    torch.testing.assert_close(pooler([pyramid, semantic], [Boxes(boxes)]), expected)


def test_no_boxes_give_no_features_with_a_gradient():
    semantic = torch.randn(1, 4, 8, 8, requires_grad=True)
    pooler = FusedROIPooler(
        ROIPooler(7, [1 / 4], 0, "ROIAlignV2"), ROIPooler(14, [1 / 8], 0, "ROIAlignV2")
    )
    features = pooler([torch.randn(1, 4, 16, 16), semantic], [Boxes(torch.zeros(0, 4))])
    assert features.shape == (0, 4, 7, 7)
    features.sum().backward()
    assert not semantic.grad.any()


def pyramid_of(dtype=torch.float32):
    """Maps of the levels 2 to 4 and a semantic map of level 3, of two images of 128 x 160."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(32, 40), (16, 20), (8, 10), (16, 20)]
    return [torch.randn(2, 5, *size, generator=generator).to(dtype) for size in sizes]


def boxes_of_two_images():
    """Of all three levels, of no area, and outside."""
    first = [[3, 5, 40, 50], [0, 0, 160, 128], [10, 10, 10, 10]]
    second = [[20, 20, 150, 120], [-50, -60, -10, -20], [7, 90, 15, 95.5], [5, 5, 130, 20]]
    return [Boxes(torch.tensor(boxes).float()) for boxes in (first, second)]


def make_pooler(size=7, semantic_size=14, sampling_ratio=0, pooler_type="ROIAlignV2", **kwargs):
    pooler = ROIPooler(
        size, [1 / 4, 1 / 8, 1 / 16], sampling_ratio, pooler_type, canonical_box_size=56, **kwargs
    )
    if semantic_size is None:
        return FusedROIPooler(pooler)
    return FusedROIPooler(
        pooler, ROIPooler(semantic_size, [1 / 8], sampling_ratio, pooler_type, **kwargs)
    )


def unfused(pooler, x, boxes):
    pooler.in_one_pass = False
    return pooler(x, boxes)


needs_operator = pytest.mark.skipif("cpu" not in compiled_devices, reason="it is not compiled")


@needs_operator
@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize(("size", "semantic_size"), [(7, 14), (14, 14), (7, 21), (7, None)])
def test_in_one_pass_values_and_gradients_are_those_of_detectron2s_poolers(
    size, semantic_size, sampling_ratio, pooler_type
):
    results = []
    for run in (FusedROIPooler.__call__, unfused):
        pooler = make_pooler(size, semantic_size, sampling_ratio, pooler_type)
        assert pooler.in_one_pass
        x = [m.requires_grad_() for m in pyramid_of(torch.float64)]
        x = x if semantic_size else x[:3]
        features = run(pooler, x, boxes_of_two_images())
        assert features.shape == (7, 5, size, size)
        results.append([features, *torch.autograd.grad(features.square().sum(), x)])
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-6)


@needs_operator
def test_features_of_lower_precision_keep_their_type():
    x = pyramid_of(torch.bfloat16)
    features = make_pooler()(x, boxes_of_two_images())
    assert features.dtype == torch.bfloat16
    expected = make_pooler()([m.float() for m in x], boxes_of_two_images())
    torch.testing.assert_close(features.float(), expected, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    "pooler",
    [
        lambda: make_pooler(pooler_type="ROIPool"),
        lambda: make_pooler(semantic_size=10),
        lambda: FusedROIPooler(
            ROIPooler(7, [1 / 4, 1 / 8, 1 / 16], 0, "ROIAlignV2"),
            ROIPooler(14, [1 / 8], 2, "ROIAlignV2"),
        ),
    ],
    ids=["ROIPool", "10 is no multiple of 7", "different samples"],
)
def test_poolers_that_one_pass_cannot_do_are_called_themselves(pooler):
    pooler = pooler()
    x, boxes = pyramid_of(), boxes_of_two_images()
    features = pooler(x, boxes)
    semantic = F.adaptive_avg_pool2d(pooler.semantic_pooler(x[3:], boxes), 7)
    assert torch.equal(features, pooler.pooler(x[:3], boxes) + semantic)


@needs_operator
def test_a_trace_has_torchvisions_operators_only():
    pooler = make_pooler()
    image_boxes = torch.tensor([[3.0, 5, 40, 50], [0, 0, 160, 128]])

    def pool(p2, p3, p4, semantic, boxes):
        return pooler([p2, p3, p4, semantic], [Boxes(boxes)])

    x = [m[:1] for m in pyramid_of()]
    traced = torch.jit.trace(pool, (*x, image_boxes))
    assert "hybrid_cascade::" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(*x, image_boxes), pool(*x, image_boxes))
