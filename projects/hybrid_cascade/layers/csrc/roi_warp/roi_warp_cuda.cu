// RoI warp on CUDA devices. The legend is in roi_warp.h.
//
// Each lane of a warp works on one channel. Features are read in channels-last order, so that a warp reads
// whole cache lines, and all its lanes take the same branches, since they share the box and its samples. A
// thread walks along a row of samples from one end to the other. It holds the two pixel columns that the
// sample lies between, interpolated along y, and reads the next column when a sample passes it. A tile of
// cells is collected in shared memory, where it is transposed to the order of the output.
#include "cuda_tile.cuh"

#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

namespace hybrid_cascade::roi_warp {
namespace {

// Computes the cells of a tile, of one channel.
template <typename scalar_t, typename T>
__device__ void fill(const Tile<T>& tile, const Warp& warp, const Channel<scalar_t, T>& channel) {
  const int lane = threadIdx.x;
  for (int row = threadIdx.y; row < tile.rows; row += blockDim.y) {
    for (int dy = 0; dy < warp.pool; ++dy) {
      const Sample<T> y = tile.row_samples[row * warp.pool + dy];
      int held = kOutside;
      T left = 0, right = 0;
      for (int column = 0; column < tile.columns; ++column) {
        const int cell = lane * tile.lane_stride + row * tile.columns + column;
        T best = dy == 0 ? T(0) : tile.cells[cell];
        int best_index = dy == 0 ? 0 : tile.indices[cell];
        for (int dx = 0; dx < warp.pool; ++dx) {
          const Sample<T> x = tile.column_samples[column * warp.pool + dx];
          T value = 0;
          if (x.low != kOutside && y.low != kOutside) {
            if (x.low != held) {
              left = x.low == held + 1 && held != kOutside ? right : channel.column(y, x.low);
              right = channel.column(y, x.low + 1);
              held = x.low;
            }
            value = interpolate(left, right, x.weight);
          }
          const int index = dy * warp.pool + dx;
          if (index == 0 || replaces(value, best)) {
            best = value;
            best_index = index;
          }
        }
        tile.cells[cell] = best;
        tile.indices[cell] = static_cast<uint8_t>(best_index);
      }
    }
  }
}

// The grid is boxes x groups of channels x tiles. It may have fewer groups and tiles than there are: a thread
// block then takes several, in order.
template <typename scalar_t, typename T>
__global__ void __launch_bounds__(kLanes* kRows) forward_kernel(
    const Warp warp,
    const Tiling tiling,
    const scalar_t* __restrict__ input,
    const T* __restrict__ boxes,
    scalar_t* __restrict__ output,
    uint8_t* __restrict__ argmax) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int64_t roi = blockIdx.x;
  const T* box = boxes + 5 * roi;
  CUDA_KERNEL_ASSERT(warp.has_image(box[0]) && "roi_warp: image index out of range");
  const int64_t image = static_cast<int64_t>(box[0]) * warp.height * warp.width * warp.channels;
  for (int64_t group = blockIdx.y; group < tiling.groups; group += gridDim.y) {
    const int64_t first = group * kLanes;
    const int channels = static_cast<int>(min(int64_t(kLanes), warp.channels - first));
    const Channel<scalar_t, T> channel{
        threadIdx.x < channels ? input + image + first + threadIdx.x : nullptr,
        warp.channels,
        warp.height,
        warp.width};
    for (int index = blockIdx.z; index < tiling.tiles(); index += gridDim.z) {
      const Tile<T> tile(memory, warp, tiling, index);
      tile.compute_samples(warp, warp.y_axis(box), warp.x_axis(box));
      __syncthreads(); // nor does any thread read the cells of the previous tile any more
      fill(tile, warp, channel);
      __syncthreads();
      tile.for_each_cell(warp, roi * warp.channels + first, channels, [&](int cell, int64_t place) {
        output[place] = static_cast<scalar_t>(tile.cells[cell]);
        if (argmax) {
          argmax[place] = tile.indices[cell];
        }
      });
    }
  }
}

// Walks along the samples as forward_kernel does. The gradients that the samples between two pixel columns
// send to these are summed before they are added to memory. The grid may have fewer boxes, too. With one box,
// one tile and one row of threads in it, each channel of the maps belongs to one thread, which makes the sums
// deterministic.
template <typename scalar_t, typename T>
__global__ void __launch_bounds__(kLanes* kRows) backward_kernel(
    const Warp warp,
    const Tiling tiling,
    const scalar_t* __restrict__ grad,
    const scalar_t* __restrict__ input, // null: gradients of the boxes are not wanted
    const T* __restrict__ boxes,
    const uint8_t* __restrict__ argmax, // null without max pooling
    T* __restrict__ input_grad, // (N, h, w, C), or null: not wanted
    T* __restrict__ sums) { // (R, groups, tiles, kBoxSums), or null: not wanted
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ T row_sums[kRows][kBoxSums];
  const int lane = threadIdx.x;

  for (int64_t roi = blockIdx.x; roi < warp.rois; roi += gridDim.x) {
    const T* box = boxes + 5 * roi;
    CUDA_KERNEL_ASSERT(warp.has_image(box[0]) && "roi_warp: image index out of range");
    const Axis<T> x_axis = warp.x_axis(box);
    const Axis<T> y_axis = warp.y_axis(box);
    const int64_t image = static_cast<int64_t>(box[0]) * warp.height * warp.width * warp.channels;

    for (int64_t group = blockIdx.y; group < tiling.groups; group += gridDim.y) {
      const int64_t first = group * kLanes, map = image + first + lane;
      const int channels = static_cast<int>(min(int64_t(kLanes), warp.channels - first));
      const Channel<scalar_t, T> channel{
          input && lane < channels ? input + map : nullptr, warp.channels, warp.height, warp.width};
      T* channel_grad = input_grad && lane < channels ? input_grad + map : nullptr;

      for (int index = blockIdx.z; index < tiling.tiles(); index += gridDim.z) {
        Tile<T> tile(memory, warp, tiling, index);
        __syncthreads(); // no thread reads the previous tile any more
        tile.compute_samples(warp, y_axis, x_axis);
        tile.for_each_cell(warp, roi * warp.channels + first, channels, [&](int cell, int64_t place) {
          tile.cells[cell] = static_cast<T>(grad[place]);
          tile.indices[cell] = argmax ? argmax[place] : 0;
        });
        __syncthreads();

        T total[kBoxSums] = {};
        for (int row = threadIdx.y; row < tile.rows * warp.pool; row += blockDim.y) {
          const Sample<T> y = tile.row_samples[row];
          if (y.low == kOutside) {
            continue;
          }
          T y_sum = 0;
          // Called when the walk is past pixel column x: adds the gradient of its pixels to memory, and its
          // part of the derivative by y to the sum.
          const auto leave_column = [&](int x, T column_grad) {
            if (x < 0 || x >= warp.width) {
              return;
            }
            y_sum += column_grad * (channel.pixel(y.low + 1, x) - channel.pixel(y.low, x));
            const T bottom_grad = y.weight * column_grad;
            for (int below = 0; below < 2; ++below) {
              const int pixel_row = y.low + below;
              if (channel_grad && pixel_row >= 0 && pixel_row < warp.height) {
                atomicAdd(
                    channel_grad + (int64_t(pixel_row) * warp.width + x) * warp.channels,
                    below ? bottom_grad : column_grad - bottom_grad);
              }
            }
          };
          int held = kOutside;
          T left = 0, right = 0, left_grad = 0, right_grad = 0;
          for (int column = 0; column < tile.columns * warp.pool; ++column) {
            const Sample<T> x = tile.column_samples[column];
            if (x.low == kOutside) {
              continue;
            }
            if (x.low != held) {
              const bool next = held != kOutside && x.low == held + 1;
              if (held != kOutside) {
                leave_column(held, left_grad);
                if (!next) {
                  leave_column(held + 1, right_grad);
                }
              }
              left = next ? right : channel.column(y, x.low);
              right = channel.column(y, x.low + 1);
              left_grad = next ? right_grad : T(0);
              right_grad = 0;
              held = x.low;
            }
            const int cell = lane * tile.lane_stride + row / warp.pool * tile.columns + column / warp.pool;
            const int window_index = row % warp.pool * warp.pool + column % warp.pool;
            const bool chosen = lane < channels && tile.indices[cell] == window_index;
            const T cell_grad = chosen ? tile.cells[cell] : T(0);
            const T right_part = x.weight * cell_grad;
            left_grad += cell_grad - right_part;
            right_grad += right_part;
            const T term = cell_grad * (right - left);
            total[kX] += term;
            total[kXFraction] += x_axis.fraction(tile.first_column * warp.pool + column) * term;
          }
          if (held != kOutside) {
            leave_column(held, left_grad);
            leave_column(held + 1, right_grad);
          }
          total[kY] += y_sum;
          total[kYFraction] += y_axis.fraction(tile.first_row * warp.pool + row) * y_sum;
        }

        if (sums) {
          for (int i = 0; i < kBoxSums; ++i) {
            for (int distance = kLanes / 2; distance > 0; distance /= 2) {
              total[i] += __shfl_down_sync(0xffffffff, total[i], distance);
            }
            if (lane == 0) {
              row_sums[threadIdx.y][i] = total[i];
            }
          }
          __syncthreads();
          if (threadIdx.y == 0 && lane < kBoxSums) {
            T sum = 0;
            for (int row = 0; row < blockDim.y; ++row) {
              sum += row_sums[row][lane];
            }
            sums[((roi * tiling.groups + group) * tiling.tiles() + index) * kBoxSums + lane] = sum;
          }
        }
      }
    }
  }
}

dim3 make_grid(const Tiling& tiling, int64_t boxes, int64_t tiles) {
  constexpr int64_t most = 65535;
  TORCH_CHECK(boxes <= 2147483647, "roi_warp: too many boxes for one launch: ", boxes);
  // Without channels, the kernel still checks the boxes.
  return dim3(boxes, std::clamp<int64_t>(tiling.groups, 1, most), std::min(tiles, most));
}

template <typename scalar_t>
void forward(const Warp& warp, const ForwardTensors& tensors) {
  using T = at::opmath_type<scalar_t>;
  const at::Tensor channels_last = tensors.input.contiguous(at::MemoryFormat::ChannelsLast);
  const Tiling tiling(warp, sizeof(T));
  const auto kernel = forward_kernel<scalar_t, T>;
  const size_t bytes = tiling.bytes(warp, sizeof(T));
  const dim3 grid = make_grid(tiling, warp.rois, tiling.tiles());
  kernel<<<grid, dim3(kLanes, kRows), bytes, c10::cuda::getCurrentCUDAStream()>>>(
      warp,
      tiling,
      channels_last.const_data_ptr<scalar_t>(),
      tensors.boxes.const_data_ptr<T>(),
      tensors.output.mutable_data_ptr<scalar_t>(),
      tensors.argmax.numel() ? tensors.argmax.mutable_data_ptr<uint8_t>() : nullptr);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename scalar_t>
void backward(const Warp& warp, const BackwardTensors& tensors) {
  using T = at::opmath_type<scalar_t>;
  const auto& [grad, input, boxes, argmax, input_grad, sums] = tensors;
  const Tiling tiling(warp, sizeof(T));
  const bool ordered = input_grad.defined() && at::globalContext().deterministicAlgorithms();
  const dim3 grid = ordered ? make_grid(tiling, 1, 1) : make_grid(tiling, warp.rois, tiling.tiles());
  at::Tensor channels_last, channels_last_grad, parts;
  if (sums.defined()) {
    channels_last = input.contiguous(at::MemoryFormat::ChannelsLast);
    parts = at::zeros({warp.rois, tiling.groups * tiling.tiles(), kBoxSums}, sums.options());
  }
  if (input_grad.defined()) {
    channels_last_grad = at::zeros({warp.images, warp.height, warp.width, warp.channels}, boxes.options());
  }
  const auto kernel = backward_kernel<scalar_t, T>;
  const size_t bytes = tiling.bytes(warp, sizeof(T));
  kernel<<<grid, dim3(kLanes, ordered ? 1 : kRows), bytes, c10::cuda::getCurrentCUDAStream()>>>(
      warp,
      tiling,
      grad.const_data_ptr<scalar_t>(),
      sums.defined() ? channels_last.const_data_ptr<scalar_t>() : nullptr,
      boxes.const_data_ptr<T>(),
      warp.pool > 1 ? argmax.const_data_ptr<uint8_t>() : nullptr,
      input_grad.defined() ? channels_last_grad.mutable_data_ptr<T>() : nullptr,
      sums.defined() ? parts.mutable_data_ptr<T>() : nullptr);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  if (sums.defined()) {
    sums.copy_(parts.sum(1));
  }
  if (input_grad.defined()) {
    input_grad.copy_(channels_last_grad.permute({0, 3, 1, 2}));
  }
}

} // namespace

void forward_cuda(const Warp& warp, const ForwardTensors& tensors) {
  if (warp.rois == 0) {
    return;
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, tensors.input.scalar_type(), "roi_warp", [&] {
    forward<scalar_t>(warp, tensors);
  });
}

void backward_cuda(const Warp& warp, const BackwardTensors& tensors) {
  if (tensors.grad.numel() == 0) {
    if (tensors.input_grad.defined()) {
      tensors.input_grad.zero_();
    }
    return;
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, tensors.input.scalar_type(), "roi_warp_backward", [&] {
        backward<scalar_t>(warp, tensors);
      });
}

} // namespace hybrid_cascade::roi_warp
