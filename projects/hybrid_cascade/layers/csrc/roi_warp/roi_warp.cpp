// RoI warp: the operator's schema, its checks, its autocast rule and what is the same on all devices.
#include "roi_warp.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <limits>
#include <tuple>

namespace hybrid_cascade {
namespace {

Warp describe(
    const at::Tensor& input,
    const at::Tensor& boxes,
    int64_t rows,
    int64_t columns,
    double scale,
    int64_t pool,
    bool aligned) {
  TORCH_CHECK(input.dim() == 4, "roi_warp: input must be (N, C, H, W), got ", input.sizes());
  TORCH_CHECK(
      boxes.dim() == 2 && boxes.size(1) == 5, "roi_warp: boxes must be (K, 5), got ", boxes.sizes());
  TORCH_CHECK(
      input.device() == boxes.device(),
      "roi_warp: input is on ", input.device(), ", boxes are on ", boxes.device());
  TORCH_CHECK(
      input.is_floating_point() && boxes.is_floating_point(),
      "roi_warp: input and boxes must be floating point");
  // The index of a sample in its window is stored in a byte.
  TORCH_CHECK(pool >= 1 && pool <= 16, "roi_warp: max_pool must be in [1, 16], got ", pool);
  TORCH_CHECK(
      rows > 0 && columns > 0 && rows % pool == 0 && columns % pool == 0,
      "roi_warp: output_size must be positive multiples of max_pool, got ", rows, " x ", columns);
  // One axis is indexed with 32 bits, everything else with 64; the margin leaves room for kOutside.
  const int64_t limit = std::numeric_limits<int>::max() - 16;
  TORCH_CHECK(
      input.size(2) < limit && input.size(3) < limit && rows < limit && columns < limit,
      "roi_warp: sides of 2^31 and more are not supported");
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

// (K, kBoxSums) -> (K, 5), by the chain rule for
// position = x1 * scale + fraction * (x2 - x1) * scale - shift.
at::Tensor box_gradient(const at::Tensor& sums, double scale) {
  const at::Tensor x2 = sums.select(1, kXFraction).mul(scale);
  const at::Tensor y2 = sums.select(1, kYFraction).mul(scale);
  const at::Tensor x1 = sums.select(1, kX).mul(scale).sub(x2);
  const at::Tensor y1 = sums.select(1, kY).mul(scale).sub(y2);
  return at::stack({at::zeros_like(x1), x1, y1, x2, y2}, 1);
}

template <Forward forward>
std::tuple<at::Tensor, at::Tensor> roi_warp(
    const at::Tensor& input,
    const at::Tensor& boxes,
    int64_t rows,
    int64_t columns,
    double scale,
    int64_t pool,
    bool aligned,
    bool keep_argmax) {
  const Warp warp = describe(input, boxes, rows, columns, scale, pool, aligned);
  const c10::DeviceGuard guard(input.device());
  const at::Tensor output = at::empty(
      {warp.boxes, warp.channels, warp.output_rows(), warp.output_columns()}, input.options());
  const at::Tensor argmax = at::empty(
      keep_argmax && pool > 1 ? output.sizes() : at::IntArrayRef({0}),
      input.options().dtype(at::kByte));
  forward(warp, input, compute_boxes(input, boxes), output, argmax);
  return {output, argmax};
}

template <Backward backward>
std::tuple<at::Tensor, at::Tensor> roi_warp_backward(
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
  const Warp warp = describe(input, boxes, rows, columns, scale, pool, aligned);
  TORCH_CHECK(
      grad.sizes() ==
              at::IntArrayRef({warp.boxes, warp.channels, warp.output_rows(), warp.output_columns()}) &&
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
    input_grad = at::empty(input.sizes(), input.options());
  }
  if (needs_boxes_grad) {
    sums = at::zeros({warp.boxes, kBoxSums}, exact_boxes.options());
  }
  backward(warp, grad.contiguous(), input, exact_boxes, argmax.contiguous(), input_grad, sums);
  return {
      needs_input_grad ? input_grad : at::empty({0}, input.options()),
      needs_boxes_grad ? box_gradient(sums, scale).to(boxes.scalar_type())
                       : at::empty({0}, boxes.options())};
}

using WarpOperator = std::tuple<at::Tensor, at::Tensor>(
    const at::Tensor&, const at::Tensor&, int64_t, int64_t, double, int64_t, bool, bool);

// Under autocast, features keep the type that they come in, and so does the result; sums are float32 in
// any case. Coordinates are never rounded to 16 bits: at 1000 pixels float16 steps by 0.5, bfloat16 by 4.
std::tuple<at::Tensor, at::Tensor> autocast(
    const at::Tensor& input,
    const at::Tensor& boxes,
    int64_t rows,
    int64_t columns,
    double scale,
    int64_t pool,
    bool aligned,
    bool keep_argmax) {
  const c10::impl::ExcludeDispatchKeyGuard below(c10::autocast_dispatch_keyset);
  static const auto warp = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("hybrid_cascade::roi_warp", "")
                               .typed<WarpOperator>();
  const auto type = boxes.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return warp.call(input, boxes.to(type), rows, columns, scale, pool, aligned, keep_argmax);
}

} // namespace
} // namespace hybrid_cascade

TORCH_LIBRARY(hybrid_cascade, library) {
  library.set_python_module("hybrid_cascade.layers.roi_warp"); // registers autograd and fake kernels
  // The second result holds, where max_pool > 1 and keep_argmax, the index in its window of each cell's
  // sample, else nothing.
  library.def(
      "roi_warp(Tensor input, Tensor boxes, int rows, int columns, float spatial_scale, int max_pool, "
      "bool aligned, bool keep_argmax) -> (Tensor, Tensor)");
  // Gradients of input and boxes; one that is not asked for is empty.
  library.def(
      "roi_warp_backward(Tensor grad, Tensor input, Tensor boxes, Tensor argmax, int rows, int columns, "
      "float spatial_scale, int max_pool, bool aligned, bool input_grad, bool boxes_grad) "
      "-> (Tensor, Tensor)");
  library.def("compiled_with_cuda() -> bool", [] {
#ifdef WITH_CUDA
    return true;
#else
    return false;
#endif
  });
}

TORCH_LIBRARY_IMPL(hybrid_cascade, AutocastCPU, library) {
  library.impl("roi_warp", hybrid_cascade::autocast);
}

TORCH_LIBRARY_IMPL(hybrid_cascade, AutocastCUDA, library) {
  library.impl("roi_warp", hybrid_cascade::autocast);
}

TORCH_LIBRARY_IMPL(hybrid_cascade, CPU, library) {
  library.impl("roi_warp", hybrid_cascade::roi_warp<hybrid_cascade::forward_cpu>);
  library.impl("roi_warp_backward", hybrid_cascade::roi_warp_backward<hybrid_cascade::backward_cpu>);
}

#ifdef WITH_CUDA
TORCH_LIBRARY_IMPL(hybrid_cascade, CUDA, library) {
  library.impl("roi_warp", hybrid_cascade::roi_warp<hybrid_cascade::forward_cuda>);
  library.impl("roi_warp_backward", hybrid_cascade::roi_warp_backward<hybrid_cascade::backward_cuda>);
}
#endif
