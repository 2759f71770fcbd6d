// Pyramid RoIAlign: its schema and checks. See pyramid_roi_align.h for the legend.
#include "pyramid_roi_align.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zero.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

namespace hybrid_cascade::pyramid_roi_align {
namespace {

// A limit of what a box is pooled to, along each axis. Larger numbers are mistakes, which would take hours.
constexpr int64_t kMostCells = 1024;

// Of a map along an axis.
constexpr int64_t kMostPixels = 1 << 30;

bool is_side(int64_t cells) {
  return cells >= 1 && cells <= kMostCells;
}

at::ScalarType type_of_sums(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

void check(const Settings& settings, at::TensorList maps, const at::Tensor& boxes, const at::Tensor& levels) {
  const auto& [scales, bin_rows, bin_columns, sampling_ratios, aligned, rows, columns] = settings;
  TORCH_CHECK(
      !maps.empty() && maps.size() == scales.size() && maps.size() == bin_rows.size() &&
          maps.size() == bin_columns.size() && maps.size() == sampling_ratios.size() &&
          maps.size() == aligned.size(),
      "pyramid_roi_align: there must be one scale, pooled size, sampling ratio and alignment for each of "
      "the ",
      maps.size(),
      " maps, got ",
      scales.size(),
      ", ",
      std::min(bin_rows.size(), bin_columns.size()),
      ", ",
      sampling_ratios.size(),
      " and ",
      aligned.size());
  TORCH_CHECK(
      maps.size() <= kMostMaps,
      "pyramid_roi_align: at most ",
      kMostMaps,
      " maps are pooled, got ",
      maps.size());
  const at::ScalarType type = maps[0].scalar_type();
  TORCH_CHECK(
      (type == at::kHalf || type == at::kBFloat16 || type == at::kFloat || type == at::kDouble) &&
          boxes.scalar_type() == type_of_sums(type),
      "pyramid_roi_align: boxes must be float64 for maps of float64, and float32 for maps of float32, "
      "float16 "
      "and bfloat16, got boxes of ",
      boxes.scalar_type(),
      " and maps of ",
      type);
  for (const at::Tensor& map : maps) {
    TORCH_CHECK(
        map.dim() == 4 && map.size(0) == maps[0].size(0) && map.size(1) == maps[0].size(1) &&
            map.scalar_type() == type && map.numel() > 0 && map.size(2) < kMostPixels &&
            map.size(3) < kMostPixels && map.device() == boxes.device(),
        "pyramid_roi_align: maps must be (N, C, h, w), not empty, with the same N, C and type, and on the "
        "device of the boxes, got ",
        map.sizes(),
        " of ",
        map.scalar_type());
  }
  TORCH_CHECK(
      boxes.dim() == 2 && boxes.size(1) == 5, "pyramid_roi_align: boxes must be (R, 5), got ", boxes.sizes());
  TORCH_CHECK(
      levels.dim() == 2 && levels.size(0) == boxes.size(0) && levels.scalar_type() == at::kLong &&
          levels.device() == boxes.device(),
      "pyramid_roi_align: levels must be int64 (R, S), got ",
      levels.sizes(),
      " for ",
      boxes.sizes());
  TORCH_CHECK(
      is_side(rows) && is_side(columns),
      "pyramid_roi_align: output_size must be in [1, ",
      kMostCells,
      "], got ",
      rows,
      " x ",
      columns);
  for (size_t i = 0; i < maps.size(); ++i) {
    TORCH_CHECK(
        is_side(bin_rows[i]) && is_side(bin_columns[i]),
        "pyramid_roi_align: pooled_sizes must be in [1, ",
        kMostCells,
        "], got ",
        bin_rows[i],
        " x ",
        bin_columns[i]);
    TORCH_CHECK(
        sampling_ratios[i] <= kMostCells,
        "pyramid_roi_align: sampling_ratio must be at most ",
        kMostCells,
        ", got ",
        sampling_ratios[i]);
    TORCH_CHECK(
        std::isfinite(scales[i]) && scales[i] > 0,
        "pyramid_roi_align: scales must be positive and finite, got ",
        scales[i]);
  }
}

template <Forward forward>
at::Tensor operator_forward(
    at::TensorList maps,
    const at::Tensor& boxes,
    const at::Tensor& levels,
    at::ArrayRef<double> scales,
    at::IntArrayRef bin_rows,
    at::IntArrayRef bin_columns,
    at::IntArrayRef sampling_ratios,
    const c10::List<bool>& aligned,
    int64_t rows,
    int64_t columns) {
  const Settings settings{scales, bin_rows, bin_columns, sampling_ratios, aligned, rows, columns};
  check(settings, maps, boxes, levels);
  const c10::DeviceGuard guard(boxes.device());
  Maps channels_last;
  for (const at::Tensor& map : maps) {
    channels_last.push_back(map.contiguous(at::MemoryFormat::ChannelsLast));
  }
  const at::Tensor output = at::empty({boxes.size(0), maps[0].size(1), rows, columns}, maps[0].options());
  forward(settings, {channels_last, boxes.contiguous(), levels.contiguous(), output});
  return output;
}

template <Backward backward>
Maps operator_backward(
    const at::Tensor& grad,
    const at::Tensor& boxes,
    const at::Tensor& levels,
    int64_t images,
    at::IntArrayRef heights,
    at::IntArrayRef widths,
    at::ArrayRef<double> scales,
    at::IntArrayRef bin_rows,
    at::IntArrayRef bin_columns,
    at::IntArrayRef sampling_ratios,
    const c10::List<bool>& aligned) {
  TORCH_CHECK(
      grad.dim() == 4 && boxes.dim() == 2 && grad.size(0) == boxes.size(0) &&
          boxes.scalar_type() == type_of_sums(grad.scalar_type()) && images > 0 &&
          heights.size() == widths.size() &&
          std::all_of(
              heights.begin(),
              heights.end(),
              [](int64_t height) {
                return height > 0;
              }) &&
          std::all_of(
              widths.begin(),
              widths.end(),
              [](int64_t width) {
                return width > 0;
              }),
      "pyramid_roi_align_backward: grad of ",
      grad.sizes(),
      " for ",
      boxes.size(0),
      " boxes, ",
      heights.size(),
      " heights and ",
      widths.size(),
      " widths");
  const Settings settings{
      scales, bin_rows, bin_columns, sampling_ratios, aligned, grad.size(2), grad.size(3)};
  const c10::DeviceGuard guard(boxes.device());
  Maps map_grads;
  for (size_t i = 0; i < heights.size(); ++i) {
    map_grads.push_back(
        at::empty(
            {images, grad.size(1), heights[i], widths[i]}, boxes.options(), at::MemoryFormat::ChannelsLast)
            .zero_());
  }
  check(settings, map_grads, boxes, levels);
  backward(settings, {grad.contiguous(), boxes.contiguous(), levels.contiguous(), map_grads});
  for (at::Tensor& map_grad : map_grads) {
    map_grad = map_grad.to(grad.scalar_type());
  }
  return map_grads;
}

TORCH_LIBRARY_FRAGMENT(hybrid_cascade, library) {
  library.set_python_module("hybrid_cascade.layers.pyramid_roi_align"); // registers autograd and fake kernels
  library.def(
      "pyramid_roi_align(Tensor[] maps, Tensor boxes, Tensor levels, float[] scales, int[] bin_rows, "
      "int[] bin_columns, int[] sampling_ratios, bool[] aligned, int rows, int columns) -> Tensor");
  library.def(
      "pyramid_roi_align_backward(Tensor grad, Tensor boxes, Tensor levels, SymInt images, SymInt[] heights, "
      "SymInt[] widths, float[] scales, int[] bin_rows, int[] bin_columns, int[] sampling_ratios, bool[] "
      "aligned) "
      "-> Tensor[]");
}

TORCH_LIBRARY_IMPL(hybrid_cascade, CPU, library) {
  library.impl("pyramid_roi_align", operator_forward<forward_cpu>);
  library.impl("pyramid_roi_align_backward", operator_backward<backward_cpu>);
}

#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(hybrid_cascade, CUDA, library) {
  library.impl("pyramid_roi_align", operator_forward<forward_cuda>);
  library.impl("pyramid_roi_align_backward", operator_backward<backward_cuda>);
}
#endif

} // namespace
} // namespace hybrid_cascade::pyramid_roi_align
