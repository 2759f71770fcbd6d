// Pyramid RoIAlign on CUDA devices: all maps and boxes in one launch, and nothing that waits for the host.
// The legend is in pyramid_roi_align.h.
//
// Each lane of a warp works on one channel. Maps are channels-last, so that a warp reads whole cache lines,
// and all its lanes take the same samples. A tile of cells is collected in shared memory, where it is
// transposed from or to the order of the output.
#include "cuda_samples.cuh"
#include "pyramid_roi_align.h"

#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>

namespace hybrid_cascade::pyramid_roi_align {
namespace {

constexpr int kLanes = 32; // channels of a thread block
constexpr int kRows = 8; // cells that a thread block takes at a time

// Of type `data_t`: the features, or their gradients.
template <typename data_t>
struct Map {
  data_t* data;
  AxisPooling y, x;
};

template <typename data_t>
struct Call {
  Map<data_t> maps[kMostMaps];
  int num_maps;
  int64_t images, channels, rois, groups; // groups of kLanes channels
  int summed_maps, rows, columns;
};

// The cells of a box that a thread block collects for its channels.
template <typename T>
struct Tile {
  static constexpr int kCells = 27 * 1024 / (kLanes * sizeof(T));
  static constexpr int kStride = kCells | 1; // odd, so that lanes use different banks

  int first, last; // of the cells

  C10_DEVICE Tile(int index, int cells) : first(index * kCells), last(min(first + kCells, cells)) {
  }

  // Calls visit(index in shared memory, index in the output) for all cells of all channels, neighbouring
  // threads for neighbouring cells. `plane` is the index of the first channel in the output.
  template <typename Visit>
  C10_DEVICE void for_each_cell(int64_t plane, int channels, int cells, Visit visit) const {
    for (int lane = threadIdx.y; lane < channels; lane += blockDim.y) {
      for (int cell = first + threadIdx.x; cell < last; cell += kLanes) {
        visit(lane * kStride + cell - first, (plane + lane) * cells + cell);
      }
    }
  }
};

template <typename T>
int64_t count_tiles(int64_t cells) {
  return (cells + Tile<T>::kCells - 1) / Tile<T>::kCells;
}

// Calls visit(pixel of the map, weight) for all that a cell of a box reads of channel `channel`.
template <typename T, typename data_t, typename Visit>
C10_DEVICE void visit_pixels(
    const Call<data_t>& call, const T* box, const int64_t* levels, int cell, int64_t channel, Visit visit) {
  const int row = cell / call.columns, column = cell % call.columns;
  for (int i = 0; i < call.summed_maps; ++i) {
    const int64_t level = levels[i];
    if (level < 0 || level >= call.num_maps) {
      continue;
    }
    const Map<data_t>& map = call.maps[level];
    const Samples<T> y(box[2], box[4], map.y), x(box[1], box[3], map.x);
    const int64_t pixel = call.channels, line = map.x.size * pixel;
    data_t* image = map.data + static_cast<int64_t>(box[0]) * map.y.size * line + channel;
    const T total = y.number(row, call.rows) * x.number(column, call.columns);
    y.visit(row, call.rows, [&](int top, T y_weight) {
      x.visit(column, call.columns, [&](int left, T x_weight) {
        data_t* corner = image + top * line + left * pixel;
        visit(corner, (1 - y_weight) * (1 - x_weight) / total);
        if (x_weight > 0) {
          visit(corner + pixel, (1 - y_weight) * x_weight / total);
        }
        if (y_weight > 0) {
          visit(corner + line, y_weight * (1 - x_weight) / total);
          if (x_weight > 0) {
            visit(corner + line + pixel, y_weight * x_weight / total);
          }
        }
      });
    });
  }
}

// The grid is boxes x groups of channels x tiles. It may have fewer groups and tiles than there are: a thread
// block then takes several, in order.
template <typename scalar_t, typename T>
__global__ void __launch_bounds__(kLanes* kRows) forward_kernel(
    const __grid_constant__ Call<const scalar_t> call,
    const T* __restrict__ boxes,
    const int64_t* __restrict__ levels,
    scalar_t* __restrict__ output) {
  using Cells = Tile<T>;
  __shared__ T memory[kLanes * Cells::kStride];
  const int64_t roi = blockIdx.x;
  const T* box = boxes + 5 * roi;
  CUDA_KERNEL_ASSERT(box[0] >= 0 && box[0] < call.images && "pyramid_roi_align: image index out of range");
  const int cells = call.rows * call.columns;
  for (int64_t group = blockIdx.y; group < call.groups; group += gridDim.y) {
    const int64_t first = group * kLanes;
    const int channels = static_cast<int>(min(int64_t(kLanes), call.channels - first));
    for (int index = blockIdx.z; index * Cells::kCells < cells; index += gridDim.z) {
      const Cells tile(index, cells);
      __syncthreads(); // no thread reads the previous tile any more
      for (int cell = tile.first + threadIdx.y; cell < tile.last; cell += blockDim.y) {
        T sum = 0;
        if (threadIdx.x < channels) {
          const int64_t* of_box = levels + roi * call.summed_maps;
          visit_pixels(call, box, of_box, cell, first + threadIdx.x, [&](const scalar_t* pixel, T weight) {
            sum += weight * static_cast<T>(*pixel);
          });
        }
        memory[threadIdx.x * Cells::kStride + cell - tile.first] = sum;
      }
      __syncthreads();
      tile.for_each_cell(roi * call.channels + first, channels, cells, [&](int from, int64_t to) {
        output[to] = static_cast<scalar_t>(memory[from]);
      });
    }
  }
}

// The grid may have fewer boxes, too. With one box, one tile and one row of threads in it, each channel of
// the maps belongs to one thread, which makes the sums deterministic.
template <typename scalar_t, typename T>
__global__ void __launch_bounds__(kLanes* kRows) backward_kernel(
    const __grid_constant__ Call<T> call,
    const scalar_t* __restrict__ grad,
    const T* __restrict__ boxes,
    const int64_t* __restrict__ levels) {
  using Cells = Tile<T>;
  __shared__ T memory[kLanes * Cells::kStride];
  const int cells = call.rows * call.columns;
  for (int64_t roi = blockIdx.x; roi < call.rois; roi += gridDim.x) {
    const T* box = boxes + 5 * roi;
    CUDA_KERNEL_ASSERT(box[0] >= 0 && box[0] < call.images && "pyramid_roi_align: image index out of range");
    for (int64_t group = blockIdx.y; group < call.groups; group += gridDim.y) {
      const int64_t first = group * kLanes;
      const int channels = static_cast<int>(min(int64_t(kLanes), call.channels - first));
      for (int index = blockIdx.z; index * Cells::kCells < cells; index += gridDim.z) {
        const Cells tile(index, cells);
        __syncthreads(); // no thread reads the previous tile any more
        tile.for_each_cell(roi * call.channels + first, channels, cells, [&](int to, int64_t from) {
          memory[to] = static_cast<T>(grad[from]);
        });
        __syncthreads();
        if (threadIdx.x >= channels) {
          continue;
        }
        for (int cell = tile.first + threadIdx.y; cell < tile.last; cell += blockDim.y) {
          const T cell_grad = memory[threadIdx.x * Cells::kStride + cell - tile.first];
          const int64_t* of_box = levels + roi * call.summed_maps;
          visit_pixels(call, box, of_box, cell, first + threadIdx.x, [&](T* pixel, T weight) {
            atomicAdd(pixel, weight * cell_grad);
          });
        }
      }
    }
  }
}

template <typename data_t>
Call<data_t> describe(const Settings& settings, const Maps& maps, const at::Tensor& levels) {
  Call<data_t> call;
  for (size_t i = 0; i < maps.size(); ++i) {
    const auto along = [&](int64_t bins, int64_t size) {
      return AxisPooling{
          settings.scales[i],
          static_cast<int>(bins),
          static_cast<int>(settings.sampling_ratios[i]),
          settings.aligned[i],
          static_cast<int>(size)};
    };
    call.maps[i] = {
        static_cast<data_t*>(maps[i].data_ptr()),
        along(settings.bin_rows[i], maps[i].size(2)),
        along(settings.bin_columns[i], maps[i].size(3))};
  }
  call.num_maps = static_cast<int>(maps.size());
  call.images = maps[0].size(0);
  call.channels = maps[0].size(1);
  call.groups = (call.channels + kLanes - 1) / kLanes;
  call.rois = levels.size(0);
  call.summed_maps = static_cast<int>(levels.size(1));
  call.rows = static_cast<int>(settings.rows);
  call.columns = static_cast<int>(settings.columns);
  return call;
}

dim3 make_grid(int64_t boxes, int64_t groups, int64_t tiles) {
  constexpr int64_t most = 65535;
  TORCH_CHECK(boxes <= 2147483647, "pyramid_roi_align: too many boxes for one launch: ", boxes);
  return dim3(boxes, std::min(groups, most), std::min(tiles, most));
}

template <typename scalar_t>
void forward(const Settings& settings, const ForwardTensors& tensors) {
  using T = at::opmath_type<scalar_t>;
  const auto call = describe<const scalar_t>(settings, tensors.maps, tensors.levels);
  const dim3 grid = make_grid(call.rois, call.groups, count_tiles<T>(settings.rows * settings.columns));
  forward_kernel<scalar_t, T><<<grid, dim3(kLanes, kRows), 0, c10::cuda::getCurrentCUDAStream()>>>(
      call,
      tensors.boxes.const_data_ptr<T>(),
      tensors.levels.const_data_ptr<int64_t>(),
      tensors.output.mutable_data_ptr<scalar_t>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename scalar_t>
void backward(const Settings& settings, const BackwardTensors& tensors) {
  using T = at::opmath_type<scalar_t>;
  const auto call = describe<T>(settings, tensors.map_grads, tensors.levels);
  const bool ordered = at::globalContext().deterministicAlgorithms();
  const int64_t tiles = count_tiles<T>(settings.rows * settings.columns);
  const dim3 grid = ordered ? make_grid(1, call.groups, 1) : make_grid(call.rois, call.groups, tiles);
  const dim3 threads(kLanes, ordered ? 1 : kRows);
  backward_kernel<scalar_t, T><<<grid, threads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      call,
      tensors.grad.const_data_ptr<scalar_t>(),
      tensors.boxes.const_data_ptr<T>(),
      tensors.levels.const_data_ptr<int64_t>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

} // namespace

void forward_cuda(const Settings& settings, const ForwardTensors& tensors) {
  if (tensors.output.numel() == 0) {
    return;
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, tensors.output.scalar_type(), "pyramid_roi_align", [&] {
        forward<scalar_t>(settings, tensors);
      });
}

void backward_cuda(const Settings& settings, const BackwardTensors& tensors) {
  if (tensors.grad.numel() == 0) {
    return;
  }
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, tensors.grad.scalar_type(), "pyramid_roi_align_backward", [&] {
        backward<scalar_t>(settings, tensors);
      });
}

} // namespace hybrid_cascade::pyramid_roi_align
