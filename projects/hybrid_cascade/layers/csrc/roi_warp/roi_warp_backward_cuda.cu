// RoI warp on CUDA devices: the backward pass. The legend is in roi_warp.h.
//
// The gradients of a tile of cells are transposed in shared memory. Then warps walk along the rows of samples
// as in the forward pass. What the samples between two columns of pixels send to these, and to the box, is
// summed in registers. When the walk leaves a column, the rows of a window add to memory together.
#include "cuda_columns.cuh"
#include "cuda_tile.cuh"

#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

namespace hybrid_cascade::roi_warp {
namespace {

// The map of an image's gradients, channels last, in the channels of a lane.
template <typename T>
struct LaneGradient {
  T* data; // null where it is not wanted, and in lanes that have no channels
  uint32_t pixel_bytes;
  int height, width;

  // Null for a row that is not there.
  __device__ T* row(int y) const {
    return data && y >= 0 && y < height ? data + int64_t(y) * width * (pixel_bytes / sizeof(T)) : nullptr;
  }
  __device__ void add(T* row, int x, const T (&values)[kPerLane]) const {
    if (row) {
      add_atomically(address(row, x, pixel_bytes), values);
    }
  }
};

// Walks along kRows rows of samples, and sums what they send to the features, and, with kBoxes, to the box.
template <typename scalar_t, typename T, int kRows, bool kBoxes>
struct GradientWalk {
  using Values = T[kRows][kPerLane];

  Columns<scalar_t, T, kRows, true> columns; // of features; without kBoxes, only their places
  const LaneGradient<T>& gradient;
  T *top[kRows], *bottom[kRows]; // rows of the gradient
  int passed[kRows]; // rows of pixels between the row of samples and the one before

  // Of the gradients of the samples between the two columns: their sum, that of what the right column
  // receives, and that of their products with their places in the box.
  Values sum = {}, to_right = {}, steps = {};
  Values to_left = {}; // what earlier samples have sent to the left column
  // Of all samples and channels.
  T x_sum = 0, x_steps = 0, y_sum[kRows] = {};

  __device__ GradientWalk(const LaneMap& map, const LaneGradient<T>& gradient, const Sample<T>* rows)
      : columns(map, rows), gradient(gradient) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      top[row] = gradient.row(rows[row].low);
      bottom[row] = gradient.row(rows[row].low + 1);
      passed[row] = row == 0 ? 0 : rows[row].low - rows[row - 1].low;
    }
  }

  // Takes the gradient of a sample between the columns, which has this weight in the right column.
  __device__ void take(int row, int part, T grad, T weight, T step) {
    sum[row][part] += grad;
    to_right[row][part] += weight * grad;
    if (kBoxes) {
      steps[row][part] += step * grad;
    }
  }

  // Makes x the place of the left column.
  __device__ void move_to(int x) {
    if (x == columns.held) {
      return;
    }
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
#pragma unroll
      for (int part = 0; part < kPerLane; ++part) {
        to_left[row][part] += sum[row][part] - to_right[row][part];
        if (kBoxes) {
          const T slope = columns.right[row][part] - columns.left[row][part];
          x_sum += sum[row][part] * slope;
          x_steps += steps[row][part] * slope;
        }
      }
    }
    leave(columns.held, to_left, columns.left_slope);
    if (x != columns.held + 1) {
      leave(columns.held + 1, to_right, columns.right_slope);
      clear(to_right);
    }
    copy(to_right, to_left);
    clear(sum);
    clear(to_right);
    clear(steps);
    if (kBoxes) {
      columns.move_to(x);
    } else {
      columns.held = x;
    }
  }

 private:
  // Adds the gradients of column x to memory, and the derivatives by y to the box. Rows of samples that share
  // pixels add to them together.
  __device__ void leave(int x, const Values& column, const Values& slope) {
    if (x < 0 || x >= columns.width) {
      return;
    }
    // What the two rows of pixels around the row of samples receive. Those that were passed have been added
    // to.
    T to_top[kPerLane] = {}, to_bottom[kPerLane] = {};
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (row > 0 && passed[row] != 0) {
        gradient.add(top[row - 1], x, to_top);
      }
      if (row > 0 && passed[row] != 0 && passed[row] != 1) {
        gradient.add(bottom[row - 1], x, to_bottom);
      }
#pragma unroll
      for (int part = 0; part < kPerLane; ++part) {
        const T grad = column[row][part], below = columns.weight[row] * grad;
        to_top[part] = grad - below +
            (passed[row] == 0       ? to_top[part]
                 : passed[row] == 1 ? to_bottom[part]
                                    : T(0));
        to_bottom[part] = below + (passed[row] == 0 ? to_bottom[part] : T(0));
        if (kBoxes) {
          y_sum[row] += grad * slope[row][part];
        }
      }
    }
    gradient.add(top[kRows - 1], x, to_top);
    gradient.add(bottom[kRows - 1], x, to_bottom);
  }
};

// Sends the gradients of the cells of a tile to the features and the box. kPool is the side of the windows; 0
// stands for any. Then the rows of a window are walked one after another. Adds to `total`, in which the
// fractions are still multiplied by the number of samples along the axis.
template <typename scalar_t, int kPool, bool kBoxes, typename T>
__device__ void send(
    const Tile<T>& tile,
    const Warp& warp,
    const LaneMap& map,
    const LaneGradient<T>& gradient,
    T shift,
    T (&total)[kBoxSums]) {
  constexpr int kTogether = kPool > 0 ? kPool : 1; // rows of samples
  constexpr int kNever = 256; // an index that no cell has
  const int pool = kPool > 0 ? kPool : warp.pool;
  for (int row = threadIdx.y; row < tile.rows; row += blockDim.y) {
    for (int dy = 0; dy < pool; dy += kTogether) {
      const Sample<T>* y = tile.row_samples + row * pool + dy;
      GradientWalk<scalar_t, T, kTogether, kBoxes> walk(map, gradient, y);
      int first_index[kTogether]; // of the samples of a row in their windows
#pragma unroll
      for (int r = 0; r < kTogether; ++r) {
        first_index[r] = y[r].low == kOutside ? kNever : (dy + r) * pool;
      }
      const Sample<T>* x = tile.column_samples;
      T step = tile.first_column * pool + shift;
      for (int column = 0; column < tile.columns; ++column) {
        T grad[kPerLane];
        int index[kPerLane];
#pragma unroll
        for (int part = 0; part < kPerLane; ++part) {
          const int place = Tile<T>::place(threadIdx.x, part) + row * tile.columns + column;
          grad[part] = tile.values[place];
          index[part] = kPool == 1 ? 0 : tile.indices[place];
        }
#pragma unroll kTogether
        for (int dx = 0; dx < pool; ++dx, ++x, ++step) {
          const Sample<T> sample = *x;
          if (sample.low == kOutside) {
            continue;
          }
          walk.move_to(sample.low);
#pragma unroll
          for (int r = 0; r < kTogether; ++r) {
#pragma unroll
            for (int part = 0; part < kPerLane; ++part) {
              if (index[part] == first_index[r] + dx) {
                walk.take(r, part, grad[part], sample.weight, step);
              }
            }
          }
        }
      }
      walk.move_to(kOutside);
      total[kX] += walk.x_sum;
      total[kXFraction] += walk.x_steps;
#pragma unroll
      for (int r = 0; r < kTogether; ++r) {
        total[kY] += walk.y_sum[r];
        total[kYFraction] += ((tile.first_row + row) * pool + dy + r + shift) * walk.y_sum[r];
      }
    }
  }
}

// The grid is that of Tiling::grid, perhaps with fewer boxes. With one box, one tile and one warp, each
// channel of the maps belongs to one thread, which makes the sums deterministic.
template <typename scalar_t, typename T, int kPool, bool kBoxes>
__global__ void __launch_bounds__(kLanes* kWarps, 3) backward_kernel(
    const Warp warp,
    const Tiling tiling,
    const scalar_t* __restrict__ grad,
    const char* __restrict__ input, // as to_quads returns it; only with kBoxes
    const uint32_t pixel_bytes,
    const uint32_t grad_pixel_bytes,
    const T* __restrict__ boxes,
    const uint8_t* __restrict__ argmax, // unless kPool is 1
    T* __restrict__ input_grad, // (N, h, w, channels in whole quads), or null: not wanted
    T* __restrict__ sums) { // (R, groups, tiles, kBoxSums); only with kBoxes
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ T warp_sums[kWarps][kBoxSums];
  const int lane = threadIdx.x;

  for (int64_t roi = blockIdx.x; roi < warp.rois; roi += gridDim.x) {
    const T* box = boxes + 5 * roi;
    CUDA_KERNEL_ASSERT(warp.has_image(box[0]) && "roi_warp: image index out of range");
    const Axis<T> x_axis = warp.x_axis(box);
    const Axis<T> y_axis = warp.y_axis(box);
    const int64_t image = static_cast<int64_t>(box[0]) * warp.height * warp.width;

    for (int64_t group = blockIdx.y; group < tiling.groups; group += gridDim.y) {
      const int64_t first = group * kChannels;
      const int channels = static_cast<int>(min(int64_t(kChannels), warp.channels - first));
      const int64_t lane_channel = first + lane * kPerLane;
      const bool has_channels = lane_channel < warp.channels;
      const LaneMap map{
          kBoxes && has_channels ? input + image * pixel_bytes + lane_channel * sizeof(scalar_t) : nullptr,
          pixel_bytes,
          warp.height,
          warp.width};
      const LaneGradient<T> gradient{
          input_grad && has_channels ? input_grad + image * (grad_pixel_bytes / sizeof(T)) + lane_channel
                                     : nullptr,
          grad_pixel_bytes,
          warp.height,
          warp.width};

      for (int index = blockIdx.z; index < tiling.tiles(); index += gridDim.z) {
        const Tile<T> tile(memory, warp, tiling, index);
        __syncthreads(); // no thread reads the previous tile any more
        tile.compute_samples(warp, y_axis, x_axis);
        const int64_t cells = (roi * warp.channels + first) * warp.output_rows() * warp.output_columns();
        const scalar_t* group_grad = grad + cells;
        const uint8_t* group_argmax = kPool == 1 ? nullptr : argmax + cells;
        tile.for_each_cell(warp, channels, [=](int to, uint32_t from, bool exists) {
          tile.values[to] = exists ? static_cast<T>(*address(group_grad, from)) : T(0);
          if (kPool != 1) {
            tile.indices[to] = exists ? *address(group_argmax, from) : 0;
          }
        });
        __syncthreads();

        T total[kBoxSums] = {};
        send<scalar_t, kPool, kBoxes>(tile, warp, map, gradient, x_axis.shift, total);
        if (kBoxes) {
          for (int i = 0; i < kBoxSums; ++i) {
            for (int distance = kLanes / 2; distance > 0; distance /= 2) {
              total[i] += __shfl_down_sync(0xffffffff, total[i], distance);
            }
            if (lane == 0) {
              warp_sums[threadIdx.y][i] = total[i];
            }
          }
          __syncthreads();
          if (threadIdx.y == 0 && lane < kBoxSums) {
            T sum = 0;
            for (int i = 0; i < blockDim.y; ++i) {
              sum += warp_sums[i][lane];
            }
            const int samples = lane == kXFraction ? warp.columns : lane == kYFraction ? warp.rows : 1;
            sums[((roi * tiling.groups + group) * tiling.tiles() + index) * kBoxSums + lane] = sum / samples;
          }
        }
      }
    }
  }
}

template <typename scalar_t, int kPool, bool kBoxes>
void launch(const Warp& warp, const BackwardTensors& tensors) {
  using T = at::opmath_type<scalar_t>;
  const auto& [grad, input, boxes, argmax, input_grad, sums] = tensors;
  const Tiling tiling(warp, kCells<T>);
  const bool ordered = input_grad.defined() && at::globalContext().deterministicAlgorithms();
  constexpr int64_t most = 65535;
  const dim3 grid = ordered ? tiling.grid(1, 1, most) : tiling.grid(warp.rois, tiling.tiles(), most);
  const uint32_t grad_pixel_bytes = quad_bytes(warp.channels, sizeof(T));
  at::Tensor quads, parts, quads_grad;
  if (kBoxes) {
    quads = to_quads<scalar_t>(input);
    parts = at::zeros({warp.rois, tiling.groups * tiling.tiles(), kBoxSums}, sums.options());
  }
  if (input_grad.defined()) {
    const int64_t channels = grad_pixel_bytes / sizeof(T);
    const bool direct = std::is_same_v<scalar_t, T> && channels == warp.channels &&
        input_grad.is_contiguous(at::MemoryFormat::ChannelsLast);
    quads_grad = direct ? input_grad.permute({0, 2, 3, 1}).zero_()
                        : at::zeros({warp.images, warp.height, warp.width, channels}, boxes.options());
  }
  const auto kernel = backward_kernel<scalar_t, T, kPool, kBoxes>;
  const size_t bytes = tiling.bytes<T>(warp, kPool != 1);
  kernel<<<grid, dim3(kLanes, ordered ? 1 : kWarps), bytes, c10::cuda::getCurrentCUDAStream()>>>(
      warp,
      tiling,
      grad.const_data_ptr<scalar_t>(),
      kBoxes ? static_cast<const char*>(quads.const_data_ptr()) : nullptr,
      quad_bytes(warp.channels, sizeof(scalar_t)),
      grad_pixel_bytes,
      boxes.const_data_ptr<T>(),
      kPool == 1 ? nullptr : argmax.const_data_ptr<uint8_t>(),
      input_grad.defined() ? quads_grad.mutable_data_ptr<T>() : nullptr,
      kBoxes ? parts.mutable_data_ptr<T>() : nullptr);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  if (kBoxes) {
    sums.copy_(parts.sum(1));
  }
  if (input_grad.defined() && quads_grad.const_data_ptr() != input_grad.const_data_ptr()) {
    input_grad.copy_(quads_grad.narrow(3, 0, warp.channels).permute({0, 3, 1, 2}));
  }
}

template <typename scalar_t, int kPool>
void backward(const Warp& warp, const BackwardTensors& tensors) {
  tensors.sums.defined() ? launch<scalar_t, kPool, true>(warp, tensors)
                         : launch<scalar_t, kPool, false>(warp, tensors);
}

} // namespace

void backward_cuda(const Warp& warp, const BackwardTensors& tensors) {
  if (tensors.grad.numel() == 0) {
    if (tensors.input_grad.defined()) {
      tensors.input_grad.zero_();
    }
    return;
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, tensors.input.scalar_type(), "roi_warp_backward", [&] {
        switch (warp.pool) {
          case 1:
            return backward<scalar_t, 1>(warp, tensors);
          case 2:
            return backward<scalar_t, 2>(warp, tensors);
          default:
            return backward<scalar_t, 0>(warp, tensors);
        }
      });
}

} // namespace hybrid_cascade::roi_warp
