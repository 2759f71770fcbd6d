// Pyramid RoIAlign: its schema and checks. See pyramid_roi_align.h for the legend.
#include "pyramid_roi_align.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zero.h>
#include <torch/library.h>

namespace hybrid_cascade::pyramid_roi_align {
namespace {

void check(const Settings& settings, at::TensorList maps, const at::Tensor& boxes, const at::Tensor& levels) {
  const auto& [scales, bins, rows, columns, sampling_ratio, aligned] = settings;
  TORCH_CHECK(
      !maps.empty() && maps.size() == scales.size() && maps.size() == bins.size(),
      "pyramid_roi_align: ",
      maps.size(),
      " maps, ",
      scales.size(),
      " scales and ",
      bins.size(),
      " bins");
  for (const at::Tensor& map : maps) {
    TORCH_CHECK(
        map.dim() == 4 && map.size(0) == maps[0].size(0) && map.size(1) == maps[0].size(1) &&
            map.scalar_type() == boxes.scalar_type() && map.numel() > 0,
        "pyramid_roi_align: maps must be (N, C, h, w), not empty, with the same N and C and the type of the "
        "boxes, got ",
        map.sizes(),
        " of ",
        map.scalar_type());
  }
  TORCH_CHECK(
      boxes.dim() == 2 && boxes.size(1) == 5, "pyramid_roi_align: boxes must be (R, 5), got ", boxes.sizes());
  TORCH_CHECK(
      levels.dim() == 2 && levels.size(0) == boxes.size(0) && levels.scalar_type() == at::kLong,
      "pyramid_roi_align: levels must be int64 (R, S), got ",
      levels.sizes(),
      " for ",
      boxes.sizes());
  TORCH_CHECK(rows > 0 && columns > 0, "pyramid_roi_align: output_size must be positive");
  for (const int64_t count : bins) {
    TORCH_CHECK(count > 0, "pyramid_roi_align: bins must be positive");
  }
}

at::Tensor operator_forward(
    at::TensorList maps,
    const at::Tensor& boxes,
    const at::Tensor& levels,
    at::ArrayRef<double> scales,
    at::IntArrayRef bins,
    int64_t rows,
    int64_t columns,
    int64_t sampling_ratio,
    bool aligned) {
  const Settings settings{scales, bins, rows, columns, sampling_ratio, aligned};
  check(settings, maps, boxes, levels);
  Maps channels_last;
  for (const at::Tensor& map : maps) {
    channels_last.push_back(map.contiguous(at::MemoryFormat::ChannelsLast));
  }
  const at::Tensor output = at::empty({boxes.size(0), maps[0].size(1), rows, columns}, maps[0].options());
  forward_cpu(settings, {channels_last, boxes.contiguous(), levels.contiguous(), output});
  return output;
}

Maps operator_backward(
    const at::Tensor& grad,
    const at::Tensor& boxes,
    const at::Tensor& levels,
    int64_t images,
    at::IntArrayRef heights,
    at::IntArrayRef widths,
    at::ArrayRef<double> scales,
    at::IntArrayRef bins,
    int64_t sampling_ratio,
    bool aligned) {
  TORCH_CHECK(
      grad.dim() == 4 && grad.size(0) == boxes.size(0) && heights.size() == widths.size(),
      "pyramid_roi_align_backward: grad of ",
      grad.sizes(),
      " for ",
      boxes.size(0),
      " boxes, ",
      heights.size(),
      " heights and ",
      widths.size(),
      " widths");
  const Settings settings{scales, bins, grad.size(2), grad.size(3), sampling_ratio, aligned};
  Maps map_grads;
  for (size_t i = 0; i < heights.size(); ++i) {
    map_grads.push_back(
        at::empty(
            {images, grad.size(1), heights[i], widths[i]}, grad.options(), at::MemoryFormat::ChannelsLast)
            .zero_());
  }
  check(settings, map_grads, boxes, levels);
  backward_cpu(settings, {grad.contiguous(), boxes.contiguous(), levels.contiguous(), map_grads});
  return map_grads;
}

TORCH_LIBRARY_FRAGMENT(hybrid_cascade, library) {
  library.set_python_module("hybrid_cascade.layers.pyramid_roi_align"); // registers autograd and fake kernels
  library.def(
      "pyramid_roi_align(Tensor[] maps, Tensor boxes, Tensor levels, float[] scales, int[] bins, int rows, "
      "int columns, int sampling_ratio, bool aligned) -> Tensor");
  library.def(
      "pyramid_roi_align_backward(Tensor grad, Tensor boxes, Tensor levels, SymInt images, SymInt[] heights, "
      "SymInt[] widths, float[] scales, int[] bins, int sampling_ratio, bool aligned) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(hybrid_cascade, CPU, library) {
  library.impl("pyramid_roi_align", operator_forward);
  library.impl("pyramid_roi_align_backward", operator_backward);
}

} // namespace
} // namespace hybrid_cascade::pyramid_roi_align
