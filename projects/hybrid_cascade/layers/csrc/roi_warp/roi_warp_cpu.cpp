// RoI warp on the CPU: both passes over the boxes and the blocks of channels. The legend is in roi_warp.h.
#include "cpu_block_kernels.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <numeric>

namespace hybrid_cascade::roi_warp {
namespace {

// target_clones does not apply to templates, hence one function for each type.
#define INSTANTIATE(T)                                                                                       \
  VECTORISED void run_forward(                                                                               \
      const Warp& warp, const T* map, const Plan<T>& plan, T* row, T* cells, Index<T>* argmax) {             \
    argmax ? warp_block<true>(warp, map, plan, row, cells, argmax)                                           \
           : warp_block<false>(warp, map, plan, row, cells, argmax);                                         \
  }                                                                                                          \
  VECTORISED void run_backward(                                                                              \
      const Warp& warp,                                                                                      \
      const T* cells,                                                                                        \
      const Index<T>* argmax,                                                                                \
      const T* map,                                                                                          \
      const Plan<T>& plan,                                                                                   \
      T* row,                                                                                                \
      T* row_grad,                                                                                           \
      T* map_grad,                                                                                           \
      T* sums) {                                                                                             \
    warp_block_backward<T>(warp, cells, argmax, map, plan, row, row_grad, map_grad, sums);                   \
  }
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

template <typename scalar_t>
void forward(const Warp& warp, const ForwardTensors& tensors) {
  using T = at::opmath_type<scalar_t>;
  const std::vector<Plan<T>> plans = make_plans<T>(warp, tensors.boxes);
  const at::Tensor packed = pack<scalar_t, T>(warp, tensors.input);
  const T* maps = packed.const_data_ptr<T>();
  scalar_t* output = tensors.output.mutable_data_ptr<scalar_t>();
  uint8_t* argmax = tensors.argmax.numel() ? tensors.argmax.mutable_data_ptr<uint8_t>() : nullptr;
  const int64_t blocks = block_count(warp.channels);
  const int64_t cells = int64_t(warp.output_rows()) * warp.output_columns();

  // Block by block, and in a block box by box: a block of a map stays in the cache.
  at::parallel_for(0, blocks * warp.rois, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> row(warp.pool * most_pixels(warp) * kBlock);
    std::vector<T> block(cells * kBlock);
    std::vector<Index<T>> block_argmax(argmax ? cells * kBlock : 0);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t roi = task % warp.rois;
      const int64_t first = task / warp.rois * kBlock;
      const int channels = block_channels(warp.channels, first);
      run_forward(
          warp,
          maps + (plans[roi].image * blocks + first / kBlock) * packed_map_size(warp),
          plans[roi],
          row.data(),
          block.data(),
          argmax ? block_argmax.data() : nullptr);
      const int64_t offset = (roi * warp.channels + first) * cells;
      from_block(block.data(), cells, channels, output + offset);
      if (argmax) {
        from_block(block_argmax.data(), cells, channels, argmax + offset);
      }
    }
  });
}

// Each task owns a block of channels of an image and visits its boxes in order. No two tasks write to the
// same place, and sums are always formed in the same order.
template <typename scalar_t>
void backward(const Warp& warp, const BackwardTensors& tensors) {
  using T = at::opmath_type<scalar_t>;
  const std::vector<Plan<T>> plans = make_plans<T>(warp, tensors.boxes);
  const int64_t blocks = block_count(warp.channels);
  const int64_t cells = int64_t(warp.output_rows()) * warp.output_columns();
  const scalar_t* grad = tensors.grad.const_data_ptr<scalar_t>();
  const uint8_t* argmax = warp.pool > 1 ? tensors.argmax.const_data_ptr<uint8_t>() : nullptr;

  at::Tensor packed, packed_grad, block_sums;
  const T* maps = nullptr;
  T* map_grads = nullptr;
  T* sums = nullptr;
  if (tensors.sums.defined()) {
    packed = pack<scalar_t, T>(warp, tensors.input);
    maps = packed.const_data_ptr<T>();
    block_sums = at::zeros({blocks, warp.rois, kBoxSums}, tensors.sums.options());
    sums = block_sums.mutable_data_ptr<T>();
  }
  if (tensors.input_grad.defined()) {
    packed_grad = at::zeros({warp.images * blocks * packed_map_size(warp)}, tensors.boxes.options());
    map_grads = packed_grad.mutable_data_ptr<T>();
  }

  at::parallel_for(0, warp.images * blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> row(most_pixels(warp) * kBlock);
    std::vector<T> row_grad(most_pixels(warp) * kBlock);
    std::vector<T> block(cells * kBlock);
    std::vector<Index<T>> block_argmax(argmax ? cells * kBlock : 0);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % blocks * kBlock;
      const int channels = block_channels(warp.channels, first);
      for (int64_t roi = 0; roi < warp.rois; ++roi) {
        if (plans[roi].image != task / blocks) {
          continue;
        }
        const int64_t offset = (roi * warp.channels + first) * cells;
        to_block(grad + offset, cells, channels, block.data());
        if (argmax) {
          to_block(argmax + offset, cells, channels, block_argmax.data());
        }
        std::vector<T> channel_sums(kBoxSums * kBlock);
        run_backward(
            warp,
            block.data(),
            argmax ? block_argmax.data() : nullptr,
            maps ? maps + task * packed_map_size(warp) : nullptr,
            plans[roi],
            row.data(),
            row_grad.data(),
            map_grads ? map_grads + task * packed_map_size(warp) : nullptr,
            channel_sums.data());
        for (int i = 0; sums && i < kBoxSums; ++i) {
          const T* of_channels = channel_sums.data() + i * kBlock;
          sums[(task % blocks * warp.rois + roi) * kBoxSums + i] =
              std::accumulate(of_channels, of_channels + channels, T(0));
        }
      }
    }
  });
  if (tensors.sums.defined()) {
    tensors.sums.copy_(block_sums.sum(0));
  }
  if (tensors.input_grad.defined()) {
    unpack<scalar_t, T>(warp, packed_grad, tensors.input_grad);
  }
}

} // namespace

void forward_cpu(const Warp& warp, const ForwardTensors& tensors) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, tensors.input.scalar_type(), "roi_warp", [&] {
    forward<scalar_t>(warp, tensors);
  });
}

void backward_cpu(const Warp& warp, const BackwardTensors& tensors) {
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, tensors.input.scalar_type(), "roi_warp_backward", [&] {
        backward<scalar_t>(warp, tensors);
      });
}

} // namespace hybrid_cascade::roi_warp
