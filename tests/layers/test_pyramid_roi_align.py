import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from hybrid_cascade.layers import pyramid_roi_align
from hybrid_cascade.layers.pyramid_roi_align import is_compiled

pytestmark = [
    pytest.mark.skipif(not is_compiled, reason="it is not compiled"),
    pytest.mark.usefixtures("kernels"),
]

SCALES = [1 / 4, 1 / 8, 1 / 8]


def make_maps(channels=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    sizes = [(20, 28), (10, 14), (10, 14)]
    return [torch.randn(2, channels, *s, generator=generator, dtype=dtype) for s in sizes]


def make_boxes(dtype=torch.float64):
    """Return ordinary boxes, and others that cross the border, lie outside, are points, lines,
    reversed, or much larger than the maps."""
    return torch.tensor(
        [
            [0, 10.3, 20.1, 60.7, 55.2],
            [1, 0, 0, 112, 80],
            [1, -30, -20, 20, 15],
            [0, 90, 60, 150, 130],
            [1, 200, 200, 250, 240],
            [0, -90, -80, -40, -30],
            [0, 33, 21, 33, 21],
            [1, 40, 10, 40, 50],
            [0, 60, 50, 20, 10],
            [1, 3, 3, 4.5, 70],
            [0, 110, 78, 112, 80],
            [0, -500, -400, 900, 700],
        ],
        dtype=dtype,
    )


LEVELS = torch.tensor([[0, 2], [1, 2], [0, 1], [2, 2], [1, 0], [0, 2], [1, 2], [0, 2], [1, 2]] * 2)


def levels_of(boxes):
    return LEVELS[: len(boxes)]


def twice_the_last(rows, columns):
    """Return the pooled sizes with which the last map is pooled finer than the others."""
    return [(rows, columns), (rows, columns), (2 * rows, 2 * columns)]


def by_torchvision(maps, boxes, levels, scales, size, sampling_ratio, aligned, pooled_sizes):
    """Pool every map by roi_align, average over its bins and sum over the maps, box by box."""
    ratios = [sampling_ratio] * len(maps) if isinstance(sampling_ratio, int) else sampling_ratio
    aligned = [aligned] * len(maps) if isinstance(aligned, bool) else aligned
    pooled = []
    for box, row in zip(boxes, levels, strict=True):
        pooled_maps = [
            F.adaptive_avg_pool2d(
                roi_align(
                    maps[level],
                    box[None],
                    pooled_sizes[level],
                    scales[level],
                    ratios[level],
                    aligned[level],
                ),
                size,
            )
            for level in row.tolist()
            if 0 <= level < len(maps)
        ]
        pooled.append(
            sum(pooled_maps) if pooled_maps else maps[0].new_zeros(1, maps[0].shape[1], *size)
        )
    return torch.cat(pooled)


def assert_same_values_and_gradients(channels, *args):
    boxes, results = make_boxes(), []
    for function in (pyramid_roi_align, by_torchvision):
        maps = [m.requires_grad_() for m in make_maps(channels)]
        output = function(maps, boxes, levels_of(boxes), SCALES, *args)
        weight = torch.arange(output.numel(), dtype=output.dtype).reshape(output.shape).sin()
        results.append([output, *torch.autograd.grad(output, maps, weight)])
    assert results[0][0].abs().amax(dim=(1, 2, 3)).count_nonzero() >= 6
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("sampling_ratio", [0, 1, 3])
@pytest.mark.parametrize("channels", [1, 64, 70, 135])
def test_values_and_gradients_are_torchvisions(channels, sampling_ratio, aligned):
    assert_same_values_and_gradients(
        channels, (3, 5), sampling_ratio, aligned, twice_the_last(3, 5)
    )


@pytest.mark.parametrize(
    "pooled_sizes",
    [
        [(3, 5), (6, 15), (4, 7)],  # multiples of their own along each axis, and none
        [(1, 2), (2, 9), (3, 5)],  # fewer than there are cells
        [(14, 14), (10, 1), (7, 11)],
    ],
)
def test_each_map_may_have_its_own_samples_alignment_and_size(pooled_sizes):
    assert_same_values_and_gradients(3, (3, 5), [1, 0, 2], [True, False, True], pooled_sizes)


@pytest.mark.parametrize("size", [(2, 100), (60, 1), (9, 52)])
def test_outputs_of_many_cells(size):
    assert_same_values_and_gradients(4, size, 1, True, [size, size, (7, 7)])


def test_cells_of_any_length():
    # On a map that a cell may cover, in parts or as a whole, from any place to any other.
    length = torch.arange(1.0, 61, 0.75, dtype=torch.float64)
    low = (length * 7.3) % 19 - 4
    across = torch.stack([0 * low, low, 0 * low + 1, low + length, 0 * low + 3], 1)
    boxes = torch.cat([across, across[:, [0, 2, 1, 4, 3]]])
    levels = torch.zeros(len(boxes), 1, dtype=torch.int64)
    for sampling_ratio in (0, 3):
        results = []
        for function in (pyramid_roi_align, by_torchvision):
            generator = torch.Generator().manual_seed(0)
            maps = [torch.randn(1, 2, 50, 52, generator=generator, dtype=torch.float64)]
            maps[0].requires_grad_()
            args = ([1.0], (1, 2), sampling_ratio, True, [(1, 2)])
            output = function(maps, boxes, levels, *args)
            weight = torch.arange(output.numel(), dtype=output.dtype).reshape(output.shape).sin()
            results.append([output, *torch.autograd.grad(output, maps, weight)])
        torch.testing.assert_close(*results)


def test_pixels_that_no_sample_reads_do_not_matter():
    maps = [torch.full((1, 4, 40, 40), float("nan"), requires_grad=True)]
    with torch.no_grad():
        for y in (5, 6, 25, 26):  # around the centers of the bins
            maps[0][:, :, y, [5, 6, 25, 26]] = 2.0
    boxes, levels = torch.tensor([[0.0, -4, -4, 36, 36]]), torch.zeros(1, 1, dtype=torch.int64)
    output = pyramid_roi_align(maps, boxes, levels, [1.0], (2, 2), 1)
    assert torch.equal(output, torch.full((1, 4, 2, 2), 2.0))
    output.sum().backward()
    assert maps[0].grad.sum() == 16 and maps[0].grad.count_nonzero() == 64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_maps_may_begin_anywhere_in_memory(dtype):
    # A lane on CUDA reads several channels at once only where the hardware can.
    boxes = make_boxes(torch.float64 if dtype == torch.float64 else torch.float32)
    shape, strides = (2, 8, 10, 14), (8 * 10 * 14, 1, 8 * 14, 8)
    memory = torch.randn(2 * 8 * 10 * 14 + 1).to(dtype)
    shifted = memory.as_strided(shape, strides, 1)
    args = (boxes, torch.zeros(len(boxes), 1, dtype=torch.int64), [1 / 8], (3, 3))
    assert torch.equal(
        pyramid_roi_align([shifted], *args),
        pyramid_roi_align([shifted.clone(memory_format=torch.channels_last)], *args),
    )


def test_float32_and_the_memory_format_of_the_maps_change_rounding_only():
    boxes = make_boxes(torch.float32)
    maps = make_maps(70, torch.float32)
    args = (boxes, levels_of(boxes), SCALES, (7, 7), 0, True, twice_the_last(7, 7))
    output = pyramid_roi_align(maps, *args)
    torch.testing.assert_close(output, by_torchvision(maps, *args), atol=1e-5, rtol=1e-5)
    channels_last = [m.to(memory_format=torch.channels_last) for m in maps]
    assert torch.equal(pyramid_roi_align(channels_last, *args), output)
    assert output.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_maps_are_summed_in_float32(dtype):
    boxes = make_boxes(torch.float32)
    narrow = [m.to(dtype).requires_grad_() for m in make_maps(40, torch.float32)]
    wide = [m.detach().float().requires_grad_() for m in narrow]
    results = []
    for maps in (narrow, wide):
        output = pyramid_roi_align(maps, boxes, levels_of(boxes), SCALES, (7, 7))
        grad = torch.arange(output.numel()).reshape(output.shape).sin().to(dtype)
        grads = torch.autograd.grad(output, maps, grad.to(output.dtype))
        assert all(g.dtype == output.dtype for g in grads)
        results.append([output.float(), *(g.float() for g in grads)])
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(*results, rtol=eps, atol=1e-5)


def test_deterministic_gradients_of_many_cells():
    boxes, results = make_boxes(), []
    for deterministic in (False, True, True):
        maps = [m.requires_grad_() for m in make_maps(33)]
        torch.use_deterministic_algorithms(deterministic)
        try:
            output = pyramid_roi_align(maps, boxes, levels_of(boxes), SCALES, (12, 15), 2)
            results.append(torch.autograd.grad(output.square().sum(), maps))
        finally:
            torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(results[1], results[0])
    assert all(torch.equal(a, b) for a, b in zip(*results[1:], strict=True))


@pytest.fixture
def threads():
    number = torch.get_num_threads()
    yield
    torch.set_num_threads(number)


def test_the_number_of_threads_changes_nothing(kernels, threads):
    if kernels == "emulated_cuda":
        pytest.skip("threads of the CPU do not run it")
    boxes = make_boxes(torch.float32)
    results = []
    for count in (1, 3):
        torch.set_num_threads(count)
        maps = [m.requires_grad_() for m in make_maps(130, torch.float32)]
        sizes = twice_the_last(7, 7)
        output = pyramid_roi_align(
            maps, boxes, levels_of(boxes), SCALES, (7, 7), pooled_sizes=sizes
        )
        results.append([output, *torch.autograd.grad(output.square().sum(), maps)])
    for one, three in zip(*results, strict=True):
        assert torch.equal(one, three)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (6, 1), (5, 7)])
def test_maps_of_one_row_or_column_and_boxes_that_end_at_their_border(size, aligned):
    height, width = size
    maps = [torch.randn(2, 66, 12, 12, dtype=torch.float64)[:, :, 2 : 2 + height, 1 : 1 + width]]
    boxes = torch.tensor(
        [
            [0, -1, -1, width, height],
            [1, 0.5, 0.5, width + 0.5, height + 0.5],
            [0, width - 1, height - 1, width + 1, height + 1],
            [1, -1, -1, 0, 0],
            [1, 0, 0, width - 1, height - 1],
        ],
        dtype=torch.float64,
    )
    levels = torch.zeros(5, 1, dtype=torch.int64)
    for sampling_ratio in (0, 2):
        args = (boxes, levels, [1.0], (3, 2), sampling_ratio, aligned)
        output = pyramid_roi_align(maps, *args)
        torch.testing.assert_close(output, by_torchvision(maps, *args, [(3, 2)]))


@pytest.mark.parametrize("far", [1e12, 1e30])
def test_boxes_that_are_absurdly_large_give_zeros(far):
    boxes = torch.tensor([[0, 0, 0, far, 10], [1, -far, -far, 10, 10]], dtype=torch.float64)
    for sampling_ratio in (0, 2):  # of the samples of the latter, none is inside
        args = (make_maps(), boxes, LEVELS[:2], SCALES, (1, 2), sampling_ratio)
        assert not pyramid_roi_align(*args).any()


def test_only_boxes_and_levels_are_kept_for_the_backward_pass():
    kept = []
    boxes = make_boxes()
    maps = [m.requires_grad_() for m in make_maps()]
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape), lambda x: x):
        pyramid_roi_align(maps, boxes, levels_of(boxes), SCALES, (2, 2))
    assert kept == [boxes.shape, (len(boxes), 2)]


def pooling_of(rows, columns):
    """Return the operator's arguments of three maps: bins along both axes, samples, alignment."""
    return [rows, rows, 2 * rows], [columns, columns, 2 * columns], [0, 1, 2], [True, False, True]


def test_the_backward_operator_refuses_what_would_be_read_out_of_bounds():
    boxes, levels = make_boxes(), levels_of(make_boxes())
    grad = torch.zeros(len(boxes) - 1, 3, 2, 2, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="for 12 boxes"):
        torch.ops.hybrid_cascade.pyramid_roi_align_backward(
            grad, boxes, levels, 2, [20, 10, 10], [28, 14, 14], SCALES, *pooling_of(2, 2)
        )


@pytest.mark.parametrize("index", [-1.0, 2.0, float("nan")])
def test_the_operators_check_the_image_of_a_box_themselves(index):
    boxes = torch.tensor([[index, 0, 0, 9, 9]], dtype=torch.float64)
    grad, levels = torch.ones(1, 3, 2, 2, dtype=torch.float64), torch.zeros(1, 1).long()
    with pytest.raises((IndexError, RuntimeError), match="image index"):
        pyramid_roi_align(make_maps(), boxes, levels, SCALES, (2, 2))
    with pytest.raises((IndexError, RuntimeError), match="image index"):
        torch.ops.hybrid_cascade.pyramid_roi_align_backward(
            grad, boxes, levels, 2, [20, 10, 10], [28, 14, 14], SCALES, *pooling_of(2, 2)
        )


def test_gradients_pass_gradcheck():
    boxes = make_boxes()[:4]
    maps = tuple(m[:, :, :6, :7].clone().requires_grad_() for m in make_maps(2))

    def function(*maps):
        return pyramid_roi_align(
            maps,
            *(boxes, levels_of(boxes), SCALES, (2, 3), [0, 1, 2], [True, False, True]),
            pooled_sizes=[(2, 3), (4, 6), (3, 5)],
        )

    assert torch.autograd.gradcheck(function, maps)


def test_operator_passes_opcheck():
    boxes = make_boxes(torch.float32)
    maps = [m.requires_grad_() for m in make_maps(3, torch.float32)]
    torch.library.opcheck(
        torch.ops.hybrid_cascade.pyramid_roi_align.default,
        (maps, boxes, levels_of(boxes), SCALES, *pooling_of(2, 3), 2, 3),
    )


def test_a_second_derivative_is_refused():
    boxes = make_boxes()
    maps = [m.requires_grad_() for m in make_maps()]
    output = pyramid_roi_align(maps, boxes, levels_of(boxes), SCALES, (2, 2))
    grads = torch.autograd.grad(output.square().sum(), maps, create_graph=True)
    with pytest.raises(NotImplementedError, match="once"):
        grads[0].sum().backward()


def test_no_boxes_give_no_features_and_zero_gradients():
    maps = [m.requires_grad_() for m in make_maps()]
    none = torch.zeros(0, 5, dtype=torch.float64), torch.zeros(0, 2, dtype=torch.int64)
    output = pyramid_roi_align(maps, *none, SCALES, (2, 2))
    assert output.shape == (0, 3, 2, 2)
    output.sum().backward()
    assert all(m.grad is not None and not m.grad.any() for m in maps)


@pytest.mark.parametrize("coordinate", [float("nan"), float("inf"), -float("inf")])
def test_boxes_that_are_not_numbers_and_levels_that_do_not_exist_give_zeros(coordinate):
    maps = make_maps()
    boxes = torch.tensor([[0, 5, 5, 30, coordinate], [1, 5, 5, 30, 30]], dtype=torch.float64)
    levels = torch.tensor([[0, 2], [-1, 3]])
    assert not pyramid_roi_align(maps, boxes, levels, SCALES, (2, 2)).any()
