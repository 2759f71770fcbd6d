// RoI warp: its schema, checks and autocast rule, and the code that all devices share. See roi_warp.h for
// the legend.
#include "roi_warp.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <tuple>

namespace hybrid_cascade::roi_warp {
namespace {

// A limit of the samples along each axis of a box. Larger numbers are mistakes, which no memory has room for.
constexpr int64_t kMostSamples = 4096;

bool is_supported(at::ScalarType type) {
  return type == at::kHalf || type == at::kBFloat16 || type == at::kFloat || type == at::kDouble;
}

using TwoTensors = std::tuple<at::Tensor, at::Tensor>;

// As in the schema.
struct Settings {
  int64_t rows, columns;
  double scale;
  int64_t pool;
  bool aligned;
};

// Checks the arguments and returns their sizes.
Warp describe(const at::Tensor& input, const at::Tensor& boxes, const Settings& settings) {
  const auto [rows, columns, scale, pool, aligned] = settings;
  TORCH_CHECK(input.dim() == 4, "roi_warp: input must be (N, C, h, w), got ", input.sizes());
  TORCH_CHECK(boxes.dim() == 2 && boxes.size(1) == 5, "roi_warp: boxes must be (R, 5), got ", boxes.sizes());
  TORCH_CHECK(
      input.device() == boxes.device(),
      "roi_warp: input is on ",
      input.device(),
      ", boxes are on ",
      boxes.device());
  TORCH_CHECK(
      is_supported(input.scalar_type()) && is_supported(boxes.scalar_type()),
      "roi_warp: input and boxes must be float16, bfloat16, float32 or float64, got ",
      input.scalar_type(),
      " and ",
      boxes.scalar_type());
  TORCH_CHECK(
      std::isfinite(scale) && scale > 0, "roi_warp: spatial_scale must be positive and finite, got ", scale);
  // The index of a sample in its window is stored in a byte.
  TORCH_CHECK(pool >= 1 && pool <= 16, "roi_warp: max_pool must be in [1, 16], got ", pool);
  TORCH_CHECK(
      rows > 0 && columns > 0 && rows % pool == 0 && columns % pool == 0 && rows <= kMostSamples &&
          columns <= kMostSamples,
      "roi_warp: output_size must be positive multiples of max_pool, at most ",
      kMostSamples,
      ", got ",
      rows,
      " x ",
      columns);
  // A row or a column has a 32-bit index, everything else a 64-bit one; the margin leaves room for kOutside.
  const int64_t limit = std::numeric_limits<int>::max() - 16;
  TORCH_CHECK(
      input.size(2) < limit && input.size(3) < limit,
      "roi_warp: maps with sides of 2^31 and more are not supported, got ",
      input.sizes());
  return {
      input.size(0),
      input.size(1),
      boxes.size(0),
      static_cast<int>(input.size(2)),
      static_cast<int>(input.size(3)),
      static_cast<int>(rows),
      static_cast<int>(columns),
      static_cast<int>(pool),
      scale,
      aligned};
}

at::Tensor compute_boxes(const at::Tensor& input, const at::Tensor& boxes) {
  return boxes.to(input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat).contiguous();
}

// Turns (R, kBoxSums) into (R, 5), by the chain rule for
// position = x1 * scale + fraction * (x2 - x1) * scale - shift.
at::Tensor box_gradient(const at::Tensor& sums, double scale) {
  const at::Tensor x2 = sums.select(1, kXFraction).mul(scale);
  const at::Tensor y2 = sums.select(1, kYFraction).mul(scale);
  const at::Tensor x1 = sums.select(1, kX).mul(scale).sub(x2);
  const at::Tensor y1 = sums.select(1, kY).mul(scale).sub(y2);
  return at::stack({at::zeros_like(x1), x1, y1, x2, y2}, 1);
}

template <Forward forward>
TwoTensors operator_forward(
    const at::Tensor& input,
    const at::Tensor& boxes,
    int64_t rows,
    int64_t columns,
    double scale,
    int64_t pool,
    bool aligned,
    bool keep_argmax) {
  const Warp warp = describe(input, boxes, {rows, columns, scale, pool, aligned});
  const c10::DeviceGuard guard(input.device());
  const at::Tensor output =
      at::empty({warp.rois, warp.channels, warp.output_rows(), warp.output_columns()}, input.options());
  const at::Tensor argmax = at::empty(
      keep_argmax && pool > 1 ? output.sizes() : at::IntArrayRef({0}), input.options().dtype(at::kByte));
  forward(warp, {input, compute_boxes(input, boxes), output, argmax});
  return {output, argmax};
}

// Whether kernels sum the gradients of the features channels last, so that a gradient of that layout needs no
// copy. Features that are channels last get one.
template <Backward backward>
constexpr bool kSumsChannelsLast = false;
template <>
constexpr bool kSumsChannelsLast<backward_cuda> = true;

template <Backward backward>
TwoTensors operator_backward(
    const at::Tensor& grad,
    const at::Tensor& input,
    const at::Tensor& boxes,
    const at::Tensor& argmax,
    int64_t rows,
    int64_t columns,
    double scale,
    int64_t pool,
    bool aligned,
    bool needs_input_grad,
    bool needs_boxes_grad) {
  const Warp warp = describe(input, boxes, {rows, columns, scale, pool, aligned});
  TORCH_CHECK(
      grad.sizes() ==
              at::IntArrayRef({warp.rois, warp.channels, warp.output_rows(), warp.output_columns()}) &&
          grad.device() == input.device() && grad.scalar_type() == input.scalar_type(),
      "roi_warp_backward: grad does not fit the input and the boxes");
  TORCH_CHECK(
      pool == 1 ||
          (argmax.sizes() == grad.sizes() && argmax.device() == input.device() &&
           argmax.scalar_type() == at::kByte),
      "roi_warp_backward: the forward pass did not keep the indices of the maxima");
  const c10::DeviceGuard guard(input.device());
  const at::Tensor exact_boxes = compute_boxes(input, boxes);
  at::Tensor input_grad, sums;
  if (needs_input_grad) {
    const bool channels_last = kSumsChannelsLast<backward> && input.is_contiguous(at::MemoryFormat::ChannelsLast);
    input_grad = at::empty(
        input.sizes(),
        input.options(),
        channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous);
  }
  if (needs_boxes_grad) {
    sums = at::zeros({warp.rois, kBoxSums}, exact_boxes.options());
  }
  backward(warp, {grad.contiguous(), input, exact_boxes, argmax.contiguous(), input_grad, sums});
  return {
      needs_input_grad ? input_grad : at::empty({0}, input.options()),
      needs_boxes_grad ? box_gradient(sums, scale).to(boxes.scalar_type()) : at::empty({0}, boxes.options())};
}

// Under autocast, features keep their type, and the result has that type too; sums are float32 in any case.
// Coordinates are never rounded to 16 bits: at 1000 pixels float16 steps by 0.5, bfloat16 by 4.
template <typename... Others>
TwoTensors autocast(const at::Tensor& input, const at::Tensor& boxes, Others... others) {
  const c10::impl::ExcludeDispatchKeyGuard below(c10::autocast_dispatch_keyset);
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("hybrid_cascade::roi_warp", "")
                             .typed<TwoTensors(const at::Tensor&, const at::Tensor&, Others...)>();
  const auto type = boxes.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return op.call(input, boxes.to(type), others...);
}

constexpr auto kAutocast = autocast<int64_t, int64_t, double, int64_t, bool, bool>;

TORCH_LIBRARY_FRAGMENT(hybrid_cascade, library) {
  library.set_python_module("hybrid_cascade.layers.roi_warp"); // registers autograd and fake kernels
  // With max_pool > 1 and keep_argmax, the second result is the index of each cell's maximum in its
  // window; otherwise it is empty.
  library.def(
      "roi_warp(Tensor input, Tensor boxes, int rows, int columns, float spatial_scale, int max_pool, "
      "bool aligned, bool keep_argmax) -> (Tensor, Tensor)");
  // The gradients of input and boxes; one that is not asked for is empty.
  library.def(
      "roi_warp_backward(Tensor grad, Tensor input, Tensor boxes, Tensor argmax, int rows, int columns, "
      "float spatial_scale, int max_pool, bool aligned, bool input_grad, bool boxes_grad) "
      "-> (Tensor, Tensor)");
}

TORCH_LIBRARY_IMPL(hybrid_cascade, AutocastCPU, library) {
  library.impl("roi_warp", kAutocast);
}

TORCH_LIBRARY_IMPL(hybrid_cascade, AutocastCUDA, library) {
  library.impl("roi_warp", kAutocast);
}

TORCH_LIBRARY_IMPL(hybrid_cascade, CPU, library) {
  library.impl("roi_warp", operator_forward<forward_cpu>);
  library.impl("roi_warp_backward", operator_backward<backward_cpu>);
}

#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(hybrid_cascade, CUDA, library) {
  library.impl("roi_warp", operator_forward<forward_cuda>);
  library.impl("roi_warp_backward", operator_backward<backward_cuda>);
}
#endif

} // namespace
} // namespace hybrid_cascade::roi_warp
