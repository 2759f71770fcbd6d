import pytest
import torch
from detectron2.config import instantiate
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler, assign_boxes_to_levels
from detectron2.structures import Boxes
from torch.nn import functional as F
from torchvision.ops import roi_align

from hybrid_cascade.layers import roi_warp
from hybrid_cascade.layers.pyramid_roi_align import is_compiled, pyramid_roi_align
from hybrid_cascade.modeling import FusedROIPooler, ROIWarpPooler
from hybrid_cascade.modeling import poolers as module

from ..layers.conftest import (  # noqa: F401 (fixtures)
    emulated_cuda_kernels,
    emulation,
    implementation,
)
from ..layers.roi_warp_cases import random_boxes, random_features


def test_fused_pooler_adds_semantic_features_pooled_to_the_size_of_the_others():
    pyramid, semantic = torch.randn(1, 4, 16, 16), torch.randn(1, 4, 8, 8)
    boxes = torch.tensor([[3.0, 5, 40, 50], [10, 10, 20, 30]])
    pooler = FusedROIPooler(
        ROIPooler(7, [1 / 4], 0, "ROIAlignV2"), ROIPooler(14, [1 / 8], 0, "ROIAlignV2")
    )
    expected = roi_align(pyramid, [boxes], 7, 1 / 4, 0, aligned=True)
    context = roi_align(semantic, [boxes], 14, 1 / 8, 0, aligned=True)
    expected = expected + context.reshape(2, 4, 7, 2, 7, 2).mean((3, 5))
    torch.testing.assert_close(pooler([pyramid, semantic], [Boxes(boxes)]), expected)


def test_no_boxes_give_no_fused_features_with_a_gradient():
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
@pytest.mark.parametrize("name", ["htc_toy", "htc_sfpn_toy", "cascade_mask_rcnn_toy"])
def test_quick_start_models_pool_all_rois_in_one_pass_each(name, tiny_config, passes):
    """One sample a bin for boxes of the demo, adaptive sampling for masks and semantic features."""
    model = instantiate(tiny_config(name)).eval()
    model([{"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)}])
    assert passes == [(7, 7)] * 3 + [(14, 14)]


@needs_operator
def test_features_of_lower_precision_keep_their_type():
    x = pyramid_of(torch.bfloat16)
    features = make_pooler()(x, boxes_of_two_images())
    assert features.dtype == torch.bfloat16
    expected = make_pooler()([m.float() for m in x], boxes_of_two_images())
    torch.testing.assert_close(features.float(), expected, atol=1e-2, rtol=1e-2)


@needs_operator
@pytest.mark.parametrize("semantic_size", [14, 10, 4, (14, 7), (9, 20)])
@pytest.mark.parametrize("semantic_type", ["ROIAlign", "ROIAlignV2"])
@pytest.mark.parametrize("sampling_ratios", [(0, 2), (1, 0), (3, 1)])
def test_both_poolers_may_differ_in_samples_alignment_and_size(
    sampling_ratios, semantic_type, semantic_size, passes
):
    ratio, semantic_ratio = sampling_ratios
    results = []
    for run in (FusedROIPooler.__call__, unfused):
        pooler = FusedROIPooler(
            ROIPooler(7, [1 / 4, 1 / 8, 1 / 16], ratio, "ROIAlignV2", 56),
            ROIPooler(semantic_size, [1 / 8], semantic_ratio, semantic_type),
        )
        x = [m.requires_grad_() for m in pyramid_of(torch.float64)]
        features = run(pooler, x, boxes_of_two_images())
        results.append([features, *torch.autograd.grad(features.square().sum(), x)])
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-6)
    assert passes == [(7, 7)]


def test_a_pooler_of_another_type_is_called_itself(passes):
    pooler = make_pooler(pooler_type="ROIPool")
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


@needs_operator
def test_on_a_device_that_the_operator_lacks_a_warning_says_so(monkeypatch, passes):
    """As a build without CUDA does on a GPU."""
    monkeypatch.setattr(module, "compiled_devices", frozenset({"cuda"}))
    module._warn_of_torchvision.cache_clear()
    with pytest.warns(UserWarning, match="on cpu, .* not compiled for it"):
        features = make_pooler()(pyramid_of(), boxes_of_two_images())
    assert passes == []
    torch.testing.assert_close(
        features, unfused(make_pooler(), pyramid_of(), boxes_of_two_images())
    )


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
@pytest.mark.parametrize(
    "place",
    [
        "pooler",
        "semantic_pooler",
        "pooler.level_poolers.1",
        "semantic_pooler.level_poolers.0",
    ],
)
@pytest.mark.parametrize("kind", ["forward", "backward"])
@pytest.mark.filterwarnings("ignore:Full backward hook:UserWarning")  # of inputs in lists
def test_poolers_with_hooks_are_called_themselves(kind, place, passes):
    pooler, expected, calls = make_pooler(), make_pooler(), []
    part = pooler.get_submodule(place)
    if kind == "forward":
        handle = part.register_forward_hook(lambda *_: calls.append(place))
    else:
        handle = part.register_full_backward_hook(lambda *_: calls.append(place))
    x, boxes = [m.requires_grad_() for m in pyramid_of()], boxes_of_two_images()
    features = pooler(x, boxes)
    features.sum().backward()
    assert calls == [place] and passes == []
    assert torch.equal(features, unfused(expected, x, boxes))
    handle.remove()
    pooler(x, boxes)
    assert calls == [place] and passes == [(7, 7)]


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
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of checks of shapes
@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated:DeprecationWarning")
def test_a_trace_of_fused_pooler_has_torchvisions_operators_only():
    pooler = make_pooler()
    image_boxes = torch.tensor([[3.0, 5, 40, 50], [0, 0, 160, 128]])

    def pool(p2, p3, p4, semantic, boxes):
        return pooler([p2, p3, p4, semantic], [Boxes(boxes)])

    x = [m[:1] for m in pyramid_of()]
    traced = torch.jit.trace(pool, (*x, image_boxes))
    assert "hybrid_cascade::" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(*x, image_boxes), pool(*x, image_boxes))


WARP_SCALES = [1 / 4, 1 / 8, 1 / 16]


def warp_pyramid(images=2, side=512, dtype=torch.float32):
    return [
        random_features(images, 3, int(side * s), int(side * s), dtype=dtype) for s in WARP_SCALES
    ]


def boxes_of_many_sizes(dtype=torch.float32):
    boxes = random_boxes(8, 1, 512, 512, dtype=dtype)[:, 1:]
    center, size = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    boxes = torch.cat([center - size / 8, center + size / 8], dim=1), boxes
    return [Boxes(b) for b in boxes]


@pytest.mark.usefixtures("implementation")
def test_boxes_are_warped_from_the_level_that_roi_pooler_takes():
    features, boxes = warp_pyramid(), boxes_of_many_sizes()
    pooler = ROIWarpPooler(6, WARP_SCALES, max_pool=2, aligned=True)
    levels = assign_boxes_to_levels(boxes, 2, 4, 224, 4)
    assert set(levels.tolist()) == {0, 1, 2}
    output = pooler(features, boxes)
    rows = torch.cat(
        [torch.cat([b.tensor.new_full((len(b), 1), i), b.tensor], 1) for i, b in enumerate(boxes)]
    )
    for row, level, result in zip(rows, levels.tolist(), output, strict=True):
        expected = roi_warp(features[level], row[None], 6, WARP_SCALES[level], 2, True)[0]
        torch.testing.assert_close(result, expected)


@pytest.mark.usefixtures("implementation")
def test_levels_of_roi_warp_pooler_are_those_of_roi_pooler():
    # Maps of which each has its own value, so that the output names the level.
    features = [torch.full((2, 1, 256 >> i, 256 >> i), i + 1.0) for i in range(3)]
    boxes = [Boxes(b.tensor.clamp(8, 500)) for b in boxes_of_many_sizes()]
    theirs = ROIPooler(4, WARP_SCALES, 1, "ROIAlignV2", canonical_box_size=112, canonical_level=4)
    ours = ROIWarpPooler(4, WARP_SCALES, aligned=True, canonical_box_size=112, canonical_level=4)
    output = ours(features, boxes)
    assert set(output[:, 0, 1, 1].tolist()) == {1.0, 2.0, 3.0}
    torch.testing.assert_close(output, theirs(features, boxes))


@pytest.mark.usefixtures("implementation")
def test_gradients_of_roi_warp_pooler_reach_features_and_boxes():
    features = [f.requires_grad_() for f in warp_pyramid()]
    boxes = boxes_of_many_sizes()
    for image_boxes in boxes:
        image_boxes.tensor.requires_grad_()
    ROIWarpPooler(4, WARP_SCALES)(features, boxes).square().sum().backward()
    assert all(f.grad.abs().sum() > 0 for f in features)
    assert all((b.tensor.grad.abs().sum(dim=1) > 0).all() for b in boxes)


@pytest.mark.usefixtures("implementation")
def test_roi_warp_pooler_with_one_level_and_an_output_that_is_not_square():
    features, boxes = warp_pyramid()[2:], boxes_of_many_sizes()
    output = ROIWarpPooler((4, 6), [1 / 16])(features, boxes)
    expected = roi_warp(features[0], [b.tensor for b in boxes], (4, 6), 1 / 16)
    assert torch.equal(output, expected)
    assert ROIWarpPooler((4, 6), WARP_SCALES)(warp_pyramid(), boxes).shape == (16, 3, 4, 6)


@pytest.mark.usefixtures("implementation")
def test_roi_warp_pooler_without_boxes_and_without_images():
    pooler = ROIWarpPooler(4, WARP_SCALES, max_pool=2)
    none = [Boxes(torch.zeros(0, 4))] * 2
    assert pooler(warp_pyramid(), none).shape == (0, 3, 2, 2)
    assert pooler(warp_pyramid(images=0), []).shape == (0, 3, 2, 2)


@pytest.mark.usefixtures("implementation")
def test_roi_warp_pooler_gives_zeros_for_boxes_that_are_not_numbers():
    boxes = boxes_of_many_sizes()
    boxes[0].tensor[1] = float("nan")
    output = ROIWarpPooler(4, WARP_SCALES)(warp_pyramid(), boxes)
    assert not output[1].any() and output[0].any()


@pytest.mark.usefixtures("implementation")
def test_roi_warp_pooler_keeps_the_type_of_half_features():
    boxes = boxes_of_many_sizes()
    output = ROIWarpPooler(4, WARP_SCALES)(warp_pyramid(dtype=torch.bfloat16), boxes)
    assert output.dtype == torch.bfloat16 and output.any()


@pytest.mark.usefixtures("implementation")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of checks of shapes
@pytest.mark.filterwarnings("ignore:`torch.jit.trace` is deprecated:DeprecationWarning")
def test_a_trace_of_roi_warp_pooler_takes_any_number_of_boxes():
    pooler = ROIWarpPooler(4, WARP_SCALES, max_pool=2)
    maps, (small, large) = warp_pyramid(images=1), boxes_of_many_sizes()

    def warp(p2, p3, p4, boxes):
        return pooler([p2, p3, p4], [Boxes(boxes)])

    traced = torch.jit.trace(warp, (*maps, small.tensor[:5]))
    for boxes in (small.tensor[:5], large.tensor, torch.zeros(0, 4)):
        assert torch.equal(traced(*maps, boxes), warp(*maps, boxes))


@pytest.mark.parametrize("scales", [[1 / 4, 1 / 16], [1 / 3], [1 / 8, 1 / 4], [2.0]])
def test_roi_warp_pooler_refuses_scales_that_are_no_pyramid(scales):
    with pytest.raises(ValueError, match="scales"):
        ROIWarpPooler(4, scales)


def test_roi_warp_pooler_refuses_wrong_numbers_of_maps_and_lists():
    pooler, boxes = ROIWarpPooler(4, WARP_SCALES), boxes_of_many_sizes()
    with pytest.raises(ValueError, match="feature maps"):
        pooler(warp_pyramid()[:2], boxes)
    with pytest.raises(ValueError, match="lists of boxes"):
        pooler(warp_pyramid(), boxes[:1])
