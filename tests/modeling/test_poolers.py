import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch.nn import functional as F
from torchvision.ops import roi_align

from hybrid_cascade.layers.pyramid_roi_align import is_compiled, pyramid_roi_align
from hybrid_cascade.modeling import FusedROIPooler
from hybrid_cascade.modeling import poolers as module


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


def make_pooler(size=7, semantic_size=14, sampling_ratio=0, pooler_type="ROIAlignV2"):
    scales = [1 / 4, 1 / 8, 1 / 16]
    pooler = ROIPooler(size, scales, sampling_ratio, pooler_type, canonical_box_size=56)
    if semantic_size is None:
        return FusedROIPooler(pooler)
    return FusedROIPooler(pooler, ROIPooler(semantic_size, [1 / 8], sampling_ratio, pooler_type))


def unfused(pooler, x, boxes):
    pooler.in_one_pass = False
    return pooler(x, boxes)


needs_operator = pytest.mark.skipif(not is_compiled, reason="it is not compiled")


@pytest.fixture
def passes(monkeypatch):
    """The output sizes of the calls of the operator."""
    calls = []

    def recording(*args, output_size, **kwargs):
        calls.append(output_size)
        return pyramid_roi_align(*args, output_size=output_size, **kwargs)

    monkeypatch.setattr(module, "pyramid_roi_align", recording)
    return calls


@needs_operator
@pytest.mark.parametrize("pooler_type", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize(("size", "semantic_size"), [(7, 14), (14, 14), (7, 21), (7, None)])
def test_in_one_pass_values_and_gradients_are_those_of_detectron2s_poolers(
    size, semantic_size, sampling_ratio, pooler_type, passes
):
    results = []
    for run in (FusedROIPooler.__call__, unfused):
        pooler = make_pooler(size, semantic_size, sampling_ratio, pooler_type)
        x = [m.requires_grad_() for m in pyramid_of(torch.float64)]
        x = x if semantic_size else x[:3]
        features = run(pooler, x, boxes_of_two_images())
        assert features.shape == (7, 5, size, size)
        results.append([features, *torch.autograd.grad(features.square().sum(), x)])
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-6)
    assert passes == [(size, size)]


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
def test_poolers_that_one_pass_cannot_do_are_called_themselves(pooler, passes):
    pooler = pooler()
    x, boxes = pyramid_of(), boxes_of_two_images()
    features = pooler(x, boxes)
    semantic = F.adaptive_avg_pool2d(pooler.semantic_pooler(x[3:], boxes), 7)
    assert torch.equal(features, pooler.pooler(x[:3], boxes) + semantic)
    assert passes == []


def test_without_the_operator_one_warning_says_so_and_torchvision_pools(monkeypatch, passes):
    monkeypatch.setattr(module, "is_compiled", False)
    module._warn_of_torchvision.cache_clear()
    with pytest.warns(UserWarning, match="not compiled") as caught:
        for _ in range(2):
            make_pooler()(pyramid_of(), boxes_of_two_images())
    assert len(caught) == 1 and passes == []


def test_a_pooler_or_layer_of_another_class_is_called(passes):
    class Zeros(ROIAlign):
        def forward(self, input, rois):
            return super().forward(input, rois) * 0

    pooler = make_pooler(semantic_size=None)
    for level, align in enumerate(pooler.pooler.level_poolers):
        pooler.pooler.level_poolers[level] = Zeros(
            align.output_size, align.spatial_scale, align.sampling_ratio, align.aligned
        )
    assert not pooler(pyramid_of()[:3], boxes_of_two_images()).any()
    assert passes == []


@needs_operator
def test_a_setting_may_change_later(passes):
    x, boxes = pyramid_of()[:3], boxes_of_two_images()
    pooler = make_pooler(semantic_size=None)
    for align in pooler.pooler.level_poolers:
        align.sampling_ratio = 1
    expected = make_pooler(semantic_size=None, sampling_ratio=1)(x, boxes)
    torch.testing.assert_close(pooler(x, boxes), expected)
    assert len(passes) == 2


@needs_operator
def test_a_pooler_of_one_level_does_not_look_at_the_size_of_boxes(passes):
    boxes = [Boxes(torch.tensor([[30.0, 5, 10, 50], [3, 5, 40, 50]]))]  # the first is reversed
    poolers = [FusedROIPooler(ROIPooler(7, [1 / 4], 2, "ROIAlignV2")) for _ in range(2)]
    x = pyramid_of()[:1]
    x = [x[0][:1]]
    torch.testing.assert_close(poolers[0](x, boxes), unfused(poolers[1], x, boxes))
    assert passes == [(7, 7)]


def test_one_list_of_boxes_for_two_images_is_an_error():
    with pytest.raises(AssertionError, match="box_list has length 1"):
        make_pooler(semantic_size=None)(pyramid_of()[:3], boxes_of_two_images()[:1])


@needs_operator
def test_maps_of_different_precision_give_the_higher_one():
    x = [*(m.bfloat16() for m in pyramid_of()[:3]), pyramid_of()[3]]
    assert make_pooler()(x, boxes_of_two_images()).dtype == torch.float32


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
