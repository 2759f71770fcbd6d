// RoI warp on CUDA devices. The legend is in roi_warp.h.
//
// A lane of a warp is a channel: features are read in channels-last order, hence in whole cache lines, and
// all lanes take the same branches, since boxes and samples are the same for them. A row of samples is
// walked from one end to the other, holding the two pixel columns, interpolated along y, that the sample
// lies between; the next column is read when a sample passes it. A tile of cells gathers in shared memory,
// where it is transposed to the order of the output.
#include "roi_warp.h"

#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

namespace hybrid_cascade {
namespace {

constexpr int kLanes = 32; // channels of a thread block
constexpr int kRows = 8; // rows of samples that a thread block takes at a time
constexpr int kTileBytes = 32 * 1024;

// A tile of output cells, of which thread blocks work on one each.
struct Tiling {
  int rows, columns; // of cells in a full tile
  int tiles_down, tiles_across;

  Tiling(const Warp& warp, size_t cell_bytes) {
    const int cells = kTileBytes / (kLanes * cell_bytes);
    columns = std::min(warp.output_columns(), cells);
    rows = std::min(warp.output_rows(), cells / columns);
    tiles_down = (warp.output_rows() + rows - 1) / rows;
    tiles_across = (warp.output_columns() + columns - 1) / columns;
  }
  __host__ __device__ int tiles() const {
    return tiles_down * tiles_across;
  }
  // Cells of a lane in shared memory: odd, so that lanes use different banks.
  __host__ __device__ int lane_stride() const {
    return rows * columns | 1;
  }
};

// A tile in shared memory: the samples of its rows and columns, and a value and an index for each cell of
// each lane.
template <typename T>
struct Tile {
  Sample<T>* row_samples;
  Sample<T>* column_samples;
  T* cells;
  uint8_t* indices;
  int first_row, first_column; // in cells
  int rows, columns; // in cells
  int lane_stride;
  int width; // output columns

  static size_t bytes(const Warp& warp, const Tiling& tiling) {
    return sizeof(Sample<T>) * (tiling.rows + tiling.columns) * warp.pool +
        (sizeof(T) + 1) * kLanes * tiling.lane_stride();
  }

  __device__ Tile(unsigned char* memory, const Warp& warp, const Tiling& tiling, int index) {
    row_samples = reinterpret_cast<Sample<T>*>(memory);
    column_samples = row_samples + tiling.rows * warp.pool;
    cells = reinterpret_cast<T*>(column_samples + tiling.columns * warp.pool);
    indices = reinterpret_cast<uint8_t*>(cells + kLanes * tiling.lane_stride());
    first_row = index / tiling.tiles_across * tiling.rows;
    first_column = index % tiling.tiles_across * tiling.columns;
    rows = min(tiling.rows, warp.output_rows() - first_row);
    columns = min(tiling.columns, warp.output_columns() - first_column);
    lane_stride = tiling.lane_stride();
    width = warp.output_columns();
  }

  __device__ void compute_samples(const Warp& warp, const Axis<T>& y, const Axis<T>& x) {
    const int thread = threadIdx.y * kLanes + threadIdx.x;
    for (int i = thread; i < rows * warp.pool; i += kLanes * blockDim.y) {
      row_samples[i] = y.sample(first_row * warp.pool + i);
    }
    for (int i = thread; i < columns * warp.pool; i += kLanes * blockDim.y) {
      column_samples[i] = x.sample(first_column * warp.pool + i);
    }
  }

  // Calls visit(index in shared memory, index in the output) for all cells of all channels, neighbouring
  // threads at neighbouring places of both. `plane` is the first channel's index in the output.
  template <typename Visit>
  __device__ void for_each_cell(const Warp& warp, int64_t plane, int channels, Visit visit) const {
    for (int lane = threadIdx.y; lane < channels; lane += blockDim.y) {
      const int64_t first =
          ((plane + lane) * warp.output_rows() + first_row) * width + first_column;
      for (int cell = threadIdx.x; cell < rows * columns; cell += kLanes) {
        const int64_t offset =
            columns == width ? cell : int64_t(cell / columns) * width + cell % columns;
        visit(lane * lane_stride + cell, first + offset);
      }
    }
  }
};

// One channel of the map of an image, channels last. Pixels outside are zero.
template <typename scalar_t, typename T>
struct Channel {
  const scalar_t* data; // null in lanes that have no channel
  int64_t pixel_stride;
  int height, width;

  __device__ T pixel(int y, int x) const {
    const bool inside = data && y >= 0 && y < height && x >= 0 && x < width;
    return inside ? static_cast<T>(data[(int64_t(y) * width + x) * pixel_stride]) : T(0);
  }
  __device__ T column(const Sample<T>& y, int x) const {
    return interpolate(pixel(y.low, x), pixel(y.low + 1, x), y.weight);
  }
};

// The grid: boxes x groups of channels x tiles.
template <typename scalar_t, typename T>
__global__ void __launch_bounds__(kLanes* kRows) forward_kernel(
    const Warp warp,
    const Tiling tiling,
    const scalar_t* __restrict__ input,
    const T* __restrict__ boxes,
    scalar_t* __restrict__ output,
    uint8_t* __restrict__ argmax) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int64_t k = blockIdx.x;
  const int64_t group = int64_t(blockIdx.y) * kLanes;
  const int channels = static_cast<int>(min(int64_t(kLanes), warp.channels - group));
  const T* box = boxes + 5 * k;
  CUDA_KERNEL_ASSERT(warp.has_image(box[0]) && "roi_warp: image index out of range");
  const int64_t image = static_cast<int64_t>(box[0]);
  const int lane = threadIdx.x;
  const Channel<scalar_t, T> channel{
      lane < channels
          ? input + image * warp.height * warp.width * warp.channels + group + lane
          : nullptr,
      warp.channels,
      warp.height,
      warp.width};

  Tile<T> tile(memory, warp, tiling, blockIdx.z);
  tile.compute_samples(warp, warp.y_axis(box), warp.x_axis(box));
  __syncthreads();

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
  __syncthreads();

  tile.for_each_cell(warp, k * warp.channels + group, channels, [&](int cell, int64_t place) {
    output[place] = static_cast<scalar_t>(tile.cells[cell]);
    if (argmax) {
      argmax[place] = tile.indices[cell];
    }
  });
}

// The same walk. What the samples between two pixel columns send to them is summed before it is added to
// memory. The grid has as many boxes and tiles as it likes: a thread block takes several in order if there are
// fewer. With one box, one tile and one row of threads, each channel of the maps belongs to one thread, which
// makes the sums deterministic.
template <typename scalar_t, typename T>
__global__ void __launch_bounds__(kLanes* kRows) backward_kernel(
    const Warp warp,
    const Tiling tiling,
    const scalar_t* __restrict__ grad,
    const scalar_t* __restrict__ input, // null where no box gradient is asked for
    const T* __restrict__ boxes,
    const uint8_t* __restrict__ argmax, // null without max pooling
    T* __restrict__ input_grad, // (N, H, W, C), or null
    T* __restrict__ sums) { // (K, groups, tiles, kBoxSums), or null
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ T row_sums[kRows][kBoxSums];
  const int64_t group = int64_t(blockIdx.y) * kLanes;
  const int channels = static_cast<int>(min(int64_t(kLanes), warp.channels - group));
  const int lane = threadIdx.x;

  for (int64_t k = blockIdx.x; k < warp.boxes; k += gridDim.x) {
    const T* box = boxes + 5 * k;
    CUDA_KERNEL_ASSERT(warp.has_image(box[0]) && "roi_warp: image index out of range");
    const int64_t map =
        static_cast<int64_t>(box[0]) * warp.height * warp.width * warp.channels + group + lane;
    const Channel<scalar_t, T> channel{
        input && lane < channels ? input + map : nullptr, warp.channels, warp.height, warp.width};
    T* channel_grad = input_grad && lane < channels ? input_grad + map : nullptr;
    const Axis<T> x_axis = warp.x_axis(box);
    const Axis<T> y_axis = warp.y_axis(box);

    for (int index = blockIdx.z; index < tiling.tiles(); index += gridDim.z) {
      Tile<T> tile(memory, warp, tiling, index);
      __syncthreads(); // the previous tile is done with
      tile.compute_samples(warp, y_axis, x_axis);
      tile.for_each_cell(warp, k * warp.channels + group, channels, [&](int cell, int64_t place) {
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
        // Ends the walk between two columns: pixel column x gets its gradient and gives its part of the
        // derivative by y.
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
          const int cell =
              lane * tile.lane_stride + row / warp.pool * tile.columns + column / warp.pool;
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
          sums[((k * gridDim.y + blockIdx.y) * tiling.tiles() + index) * kBoxSums + lane] = sum;
        }
      }
    }
  }
}

dim3 make_grid(const Warp& warp, int64_t boxes, int64_t tiles) {
  const int64_t groups = (warp.channels + kLanes - 1) / kLanes;
  TORCH_CHECK(
      boxes <= 2147483647 && groups <= 65535 && tiles <= 65535,
      "roi_warp: too many boxes, channels or cells for one launch");
  return dim3(boxes, groups, tiles);
}

template <typename T>
size_t shared_memory(const void* kernel, const Warp& warp, const Tiling& tiling) {
  const size_t bytes = Tile<T>::bytes(warp, tiling);
  C10_CUDA_CHECK(cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  return bytes;
}

template <typename scalar_t>
void forward(
    const Warp& warp,
    const at::Tensor& input,
    const at::Tensor& boxes,
    const at::Tensor& output,
    const at::Tensor& argmax) {
  using T = at::opmath_type<scalar_t>;
  const at::Tensor channels_last = input.contiguous(at::MemoryFormat::ChannelsLast);
  const Tiling tiling(warp, sizeof(T));
  const auto kernel = forward_kernel<scalar_t, T>;
  const size_t bytes = shared_memory<T>(reinterpret_cast<const void*>(kernel), warp, tiling);
  const dim3 grid = make_grid(warp, warp.boxes, tiling.tiles());
  kernel<<<grid, dim3(kLanes, kRows), bytes, c10::cuda::getCurrentCUDAStream()>>>(
      warp,
      tiling,
      channels_last.const_data_ptr<scalar_t>(),
      boxes.const_data_ptr<T>(),
      output.mutable_data_ptr<scalar_t>(),
      argmax.numel() ? argmax.mutable_data_ptr<uint8_t>() : nullptr);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename scalar_t>
void backward(
    const Warp& warp,
    const at::Tensor& grad,
    const at::Tensor& input,
    const at::Tensor& boxes,
    const at::Tensor& argmax,
    const at::Tensor& input_grad,
    const at::Tensor& sums) {
  using T = at::opmath_type<scalar_t>;
  const Tiling tiling(warp, sizeof(T));
  const bool ordered = input_grad.defined() && at::globalContext().deterministicAlgorithms();
  const dim3 grid = ordered ? make_grid(warp, 1, 1) : make_grid(warp, warp.boxes, tiling.tiles());
  at::Tensor channels_last, channels_last_grad, parts;
  if (sums.defined()) {
    channels_last = input.contiguous(at::MemoryFormat::ChannelsLast);
    parts = at::zeros({warp.boxes, int64_t(grid.y) * tiling.tiles(), kBoxSums}, sums.options());
  }
  if (input_grad.defined()) {
    channels_last_grad =
        at::zeros({warp.images, warp.height, warp.width, warp.channels}, boxes.options());
  }
  const auto kernel = backward_kernel<scalar_t, T>;
  const size_t bytes = shared_memory<T>(reinterpret_cast<const void*>(kernel), warp, tiling);
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

void forward_cuda(
    const Warp& warp,
    const at::Tensor& input,
    const at::Tensor& boxes,
    const at::Tensor& output,
    const at::Tensor& argmax) {
  if (output.numel() == 0) {
    return;
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "roi_warp", [&] {
    forward<scalar_t>(warp, input, boxes, output, argmax);
  });
}

void backward_cuda(
    const Warp& warp,
    const at::Tensor& grad,
    const at::Tensor& input,
    const at::Tensor& boxes,
    const at::Tensor& argmax,
    const at::Tensor& input_grad,
    const at::Tensor& sums) {
  if (grad.numel() == 0) {
    if (input_grad.defined()) {
      input_grad.zero_();
    }
    return;
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, input.scalar_type(), "roi_warp_backward", [&] {
        backward<scalar_t>(warp, grad, input, boxes, argmax, input_grad, sums);
      });
}

} // namespace hybrid_cascade
