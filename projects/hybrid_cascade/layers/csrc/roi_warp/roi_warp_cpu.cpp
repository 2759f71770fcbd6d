// RoI warp on the CPU: both passes over the boxes and the blocks of channels. The legend is in roi_warp.h.
#include "cpu_block_kernels.h"
#include "cpu_maps.h"

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
      const Warp& warp,                                                                                      \
      const MapBlock<const T>& map,                                                                          \
      const Plan<T>& plan,                                                                                   \
      T* row,                                                                                                \
      T* cells,                                                                                              \
      Index<T>* argmax) {                                                                                    \
    argmax ? warp_block<true>(warp, map, plan, row, cells, argmax)                                           \
           : warp_block<false>(warp, map, plan, row, cells, argmax);                                         \
  }                                                                                                          \
  VECTORISED void run_backward(                                                                              \
      const Warp& warp,                                                                                      \
      const T* cells,                                                                                        \
      const Index<T>* argmax,                                                                                \
      const MapBlock<const T>& map,                                                                          \
      const Plan<T>& plan,                                                                                   \
      T* row,                                                                                                \
      T* row_grad,                                                                                           \
      const MapBlock<T>& map_grad,                                                                           \
      T* sums) {                                                                                             \
    warp_block_backward<T>(warp, cells, argmax, map, plan, row, row_grad, map_grad, sums);                   \
  }
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

// Into how many parts the boxes of an image are divided, so that each thread has two tasks or more. Each part
// packs the rows that its boxes read, so it should have some of them.
int64_t parts_of_image(const Warp& warp, int64_t maps) {
  constexpr int64_t least_boxes = 8;
  const int64_t wanted = (2 * at::get_num_threads() + maps - 1) / std::max<int64_t>(maps, 1);
  const int64_t most = warp.rois / std::max<int64_t>(warp.images, 1) / least_boxes;
  return std::max<int64_t>(std::min(wanted, most), 1);
}

template <typename scalar_t>
void forward(const Warp& warp, const ForwardTensors& tensors) {
  using T = at::opmath_type<scalar_t>;
  const std::vector<Plan<T>> plans = make_plans<T>(warp, tensors.boxes);
  const std::vector<Reading> readings = find_read_pixels(warp, plans);
  const Features<scalar_t, T> features(warp, tensors.input);
  scalar_t* output = tensors.output.mutable_data_ptr<scalar_t>();
  uint8_t* argmax = tensors.argmax.numel() ? tensors.argmax.mutable_data_ptr<uint8_t>() : nullptr;
  const int64_t blocks = block_count(warp.channels);
  const int64_t cells = int64_t(warp.output_rows()) * warp.output_columns();
  const int64_t parts = parts_of_image(warp, warp.images * blocks);

  // Each task warps a part of the boxes of an image in one block of channels.
  at::parallel_for(0, blocks * warp.images * parts, 1, [&](int64_t begin, int64_t end) {
    const auto row = make_buffer<T>(warp.pool * most_pixels(warp) * kBlock);
    const auto block = make_buffer<T>(cells * kBlock);
    const auto block_argmax = make_buffer<Index<T>>(argmax ? cells * kBlock : 0);
    const auto packed = make_buffer<T>(features.most_packed(readings));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t part = task % parts;
      const int64_t image = task / parts % warp.images;
      const int64_t first = task / parts / warp.images * kBlock;
      const int channels = block_channels(warp.channels, first);
      const Reading& reading = readings[image];
      const MapBlock<const T> map = features.block(image, first, reading, packed.get());
      const int64_t rois = reading.rois.size();
      int bottom = 0; // of the rows that are packed
      for (int64_t i = part * rois / parts; i < (part + 1) * rois / parts; ++i) {
        const int64_t roi = reading.rois[i];
        const Plan<T>& plan = plans[roi];
        for (int y = std::max(bottom, plan.top); y < plan.bottom; ++y) {
          features.pack_row(image, first, reading, y, packed.get());
        }
        bottom = std::max(bottom, plan.bottom);
        run_forward(warp, map, plan, row.get(), block.get(), argmax ? block_argmax.get() : nullptr);
        const int64_t offset = (roi * warp.channels + first) * cells;
        from_block(block.get(), cells, cells, channels, output + offset);
        if (argmax) {
          from_block(block_argmax.get(), cells, cells, channels, argmax + offset);
        }
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
  const std::vector<Reading> readings = find_read_pixels(warp, plans);
  const Features<scalar_t, T> features(warp, tensors.input);
  const bool wants_input = tensors.input_grad.defined(), wants_boxes = tensors.sums.defined();
  const FeatureGradient<scalar_t, T> gradient{
      warp, wants_input ? tensors.input_grad.mutable_data_ptr<scalar_t>() : nullptr};
  const int64_t blocks = block_count(warp.channels);
  const int64_t cells = int64_t(warp.output_rows()) * warp.output_columns();
  const scalar_t* grad = tensors.grad.const_data_ptr<scalar_t>();
  const uint8_t* argmax = warp.pool > 1 ? tensors.argmax.const_data_ptr<uint8_t>() : nullptr;
  at::Tensor block_sums;
  T* sums = nullptr;
  if (wants_boxes) {
    block_sums = at::zeros({blocks, warp.rois, kBoxSums}, tensors.sums.options());
    sums = block_sums.mutable_data_ptr<T>();
  }

  at::parallel_for(0, blocks * warp.images, 1, [&](int64_t begin, int64_t end) {
    const auto row = make_buffer<T>(most_pixels(warp) * kBlock);
    const auto row_grad = make_buffer<T>(most_pixels(warp) * kBlock);
    const auto block = make_buffer<T>(cells * kBlock);
    const auto block_argmax = make_buffer<Index<T>>(argmax ? cells * kBlock : 0);
    const auto packed = make_buffer<T>(wants_boxes ? features.most_packed(readings) : 0);
    const auto packed_grad = make_buffer<T>(wants_input ? most_packed(readings) : 0);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t image = task % warp.images;
      const int64_t first = task / warp.images * kBlock;
      const int channels = block_channels(warp.channels, first);
      const Reading& reading = readings[image];
      const MapBlock<const T> map =
          wants_boxes ? features.block(image, first, reading, packed.get()) : MapBlock<const T>();
      const MapBlock<T> map_grad =
          wants_input ? reading.packed(packed_grad.get(), warp.height) : MapBlock<T>();
      int top = 0, bottom = 0; // the rows above `top` have their gradients, those above `bottom` are packed
      const auto finish_rows_above = [&](int y) {
        for (; wants_input && top < y; ++top) {
          gradient.unpack_row(image, first, reading, top, packed_grad.get());
        }
      };
      for (const int64_t roi : reading.rois) {
        const Plan<T>& plan = plans[roi];
        finish_rows_above(plan.top);
        for (int y = std::max(bottom, plan.top); y < plan.bottom; ++y) {
          if (wants_boxes) {
            features.pack_row(image, first, reading, y, packed.get());
          }
          if (wants_input) {
            gradient.clear_row(reading, y, packed_grad.get());
          }
        }
        bottom = std::max(bottom, plan.bottom);
        const int64_t offset = (roi * warp.channels + first) * cells;
        to_block(grad + offset, cells, cells, channels, block.get());
        if (argmax) {
          to_block(argmax + offset, cells, cells, channels, block_argmax.get());
        }
        T channel_sums[kBoxSums * kBlock] = {};
        run_backward(
            warp,
            block.get(),
            argmax ? block_argmax.get() : nullptr,
            map,
            plan,
            row.get(),
            row_grad.get(),
            map_grad,
            channel_sums);
        for (int i = 0; wants_boxes && i < kBoxSums; ++i) {
          const T* of_channels = channel_sums + i * kBlock;
          sums[(first / kBlock * warp.rois + roi) * kBoxSums + i] =
              std::accumulate(of_channels, of_channels + channels, T(0));
        }
      }
      finish_rows_above(warp.height);
    }
  });
  if (wants_boxes) {
    tensors.sums.copy_(block_sums.sum(0));
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
