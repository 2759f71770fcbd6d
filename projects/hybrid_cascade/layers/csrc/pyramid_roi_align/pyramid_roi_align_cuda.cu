// Pyramid RoIAlign on CUDA devices: all maps and boxes in one launch, and nothing that waits for the host.
// The legend is in pyramid_roi_align.h.
//
// A thread block works on a tile of cells of a box, and each of its lanes on some neighbouring channels. It
// first describes what the rows and columns of cells read of a map, in shared memory. Then each warp takes
// one cell at a time, and visits each pixel that the cell reads once. Maps are channels-last, so that a warp
// reads whole cache lines. The tile is collected in shared memory too, where it is transposed from or to the
// order of the output.
#include "cuda_samples.cuh"
#include "pyramid_roi_align.h"

#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <type_traits>

namespace hybrid_cascade::pyramid_roi_align {
namespace {

constexpr int kLanes = 32;
constexpr int kVectorBytes = 16; // that a lane takes at a time, as float32 or float64: the most there is
constexpr int kRows = 8; // cells that a thread block takes at a time
constexpr int kCells = 49; // of a tile: 7 x 7, as boxes are pooled to; odd, so that lanes use different banks

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
  int64_t images, channels, rois, groups; // groups of channels, one for a thread block
  int64_t pixel_bytes; // from a pixel to the next one
  int summed_maps, rows, columns;
  int tile_rows, tile_columns, tiles_down, tiles_across;
};

// Neighbouring channels of a pixel, read at once.
template <typename data_t, int kChannels>
struct alignas(kChannels * sizeof(data_t)) Vector {
  data_t channels[kChannels];
};

template <typename T, int kChannels>
C10_DEVICE void add_to(Vector<T, kChannels>* pixel, const T* sums) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900 && CUDART_VERSION >= 12040
  if constexpr (kChannels == 4) {
    atomicAdd(reinterpret_cast<float4*>(pixel), make_float4(sums[0], sums[1], sums[2], sums[3]));
    return;
  }
#endif
  for (int i = 0; i < kChannels; ++i) {
    atomicAdd(pixel->channels + i, sums[i]);
  }
}

// The cells of a box that a thread block works on.
template <typename data_t>
struct Tile {
  const Call<data_t>& call;
  int first_row, first_column, rows, columns;

  C10_DEVICE Tile(const Call<data_t>& call, int index) : call(call) {
    first_row = index / call.tiles_across * call.tile_rows;
    first_column = index % call.tiles_across * call.tile_columns;
    rows = min(call.tile_rows, call.rows - first_row);
    columns = min(call.tile_columns, call.columns - first_column);
  }

  // Calls visit(index in shared memory, index in the output) for all cells of `channels` channels,
  // neighbouring threads for neighbouring cells. `plane` is the index of the first channel in the output. In
  // shared memory, the first channels of all lanes lie before the second ones.
  template <int kChannels, typename Visit>
  C10_DEVICE void for_each_cell(int64_t plane, int channels, Visit visit) const {
    for (int channel = threadIdx.y; channel < channels; channel += blockDim.y) {
      const int64_t first = ((plane + channel) * call.rows + first_row) * call.columns + first_column;
      const int memory = (channel % kChannels * kLanes + channel / kChannels) * kCells;
      for (int cell = threadIdx.x; cell < rows * columns; cell += kLanes) {
        // Where a tile has whole rows, its cells are neighbours in the output, too.
        const int offset = columns == call.columns ? cell : cell / columns * call.columns + cell % columns;
        visit(memory + cell, first + offset);
      }
    }
  }

  // Calls visit(cell, first pixel of the image, row of the cell, column of the cell) for each map of a box
  // and each of its windows. The warps share the cells.
  template <typename T, typename Visit>
  C10_DEVICE void for_each_window(const T* box, const int64_t* levels, Line<T>* lines, Visit visit) const {
    const int thread = threadIdx.y * kLanes + threadIdx.x;
    for (int i = 0; i < call.summed_maps; ++i) {
      const int64_t level = levels[i];
      if (level < 0 || level >= call.num_maps) {
        continue;
      }
      const Map<data_t>& map = call.maps[level];
      const Samples<T> y(box[2], box[4], map.y, call.rows), x(box[1], box[3], map.x, call.columns);
      data_t* image = map.data + static_cast<int64_t>(box[0]) * map.y.size * map.x.size * call.channels;
      const int64_t windows = int64_t(y.windows()) * x.windows();
      for (int64_t window = 0; window < windows; ++window) {
        __syncthreads(); // no thread reads the previous lines any more
        for (int line = thread; line < rows + columns; line += kLanes * blockDim.y) {
          const bool is_row = line < rows;
          const int cell = is_row ? first_row + line : first_column + line - rows;
          const int64_t along = is_row ? window / x.windows() : window % x.windows();
          const Samples<T> samples = is_row ? y : x;
          const int64_t stride = is_row ? map.x.size * call.pixel_bytes : call.pixel_bytes;
          samples.fill(lines[line], cell, static_cast<int>(along), stride);
        }
        __syncthreads();
        for (int cell = threadIdx.y; cell < rows * columns; cell += blockDim.y) {
          visit(cell, image, lines[cell / columns], lines[rows + cell % columns]);
        }
      }
    }
  }
};

// Returns the place that is so many bytes after a pixel.
template <typename pixel_t>
C10_DEVICE pixel_t* after(pixel_t* pixel, int64_t bytes) {
  using byte_t = std::conditional_t<std::is_const_v<pixel_t>, const char, char>;
  return reinterpret_cast<pixel_t*>(reinterpret_cast<byte_t*>(pixel) + bytes);
}

// The grid is boxes x groups of channels x tiles. It may have fewer groups and tiles than there are: a thread
// block then takes several, in order. A lane takes kChannels channels.
template <typename scalar_t, typename T, int kChannels>
__global__ void __launch_bounds__(kLanes* kRows) forward_kernel(
    const __grid_constant__ Call<const scalar_t> call,
    const T* __restrict__ boxes,
    const int64_t* __restrict__ levels,
    scalar_t* __restrict__ output) {
  using Pixel = const Vector<scalar_t, kChannels>;
  using CellLine = Line<T>;
  __shared__ T sums[kChannels * kLanes * kCells];
  __shared__ CellLine lines[kCells + 1];
  const int64_t roi = blockIdx.x;
  const T* box = boxes + 5 * roi;
  CUDA_KERNEL_ASSERT(box[0] >= 0 && box[0] < call.images && "pyramid_roi_align: image index out of range");
  for (int64_t group = blockIdx.y; group < call.groups; group += gridDim.y) {
    const int64_t first = group * kChannels * kLanes;
    const int channels = static_cast<int>(min(int64_t(kChannels * kLanes), call.channels - first));
    for (int index = blockIdx.z; index < call.tiles_down * call.tiles_across; index += gridDim.z) {
      const Tile<const scalar_t> tile(call, index);
      __syncthreads(); // no thread reads the sums of the previous tile any more
      for (int cell = threadIdx.y; cell < tile.rows * tile.columns; cell += blockDim.y) {
        for (int i = 0; i < kChannels; ++i) {
          sums[(i * kLanes + threadIdx.x) * kCells + cell] = 0;
        }
      }
      const auto add = [&](int cell, const scalar_t* image, const CellLine& y, const CellLine& x) {
        if (threadIdx.x * kChannels >= channels) {
          return;
        }
        Pixel* corner = reinterpret_cast<Pixel*>(image + first + threadIdx.x * kChannels);
        T sum[kChannels] = {};
        for (int j = 0; j < y.count; ++j) {
          Pixel* row = after(corner, y.pixels[j].bytes);
          T row_sum[kChannels] = {};
#pragma unroll 4
          for (int k = 0; k < x.count; ++k) {
            const typename CellLine::Pixel read = x.pixels[k];
            const Vector<scalar_t, kChannels> pixel = *after(row, read.bytes);
            for (int i = 0; i < kChannels; ++i) {
              row_sum[i] += read.weight * static_cast<T>(pixel.channels[i]);
            }
          }
          for (int i = 0; i < kChannels; ++i) {
            sum[i] += y.pixels[j].weight * row_sum[i];
          }
        }
        for (int i = 0; i < kChannels; ++i) {
          sums[(i * kLanes + threadIdx.x) * kCells + cell] += sum[i];
        }
      };
      tile.for_each_window(box, levels + roi * call.summed_maps, lines, add);
      __syncthreads();
      const int64_t plane = roi * call.channels + first;
      tile.template for_each_cell<kChannels>(plane, channels, [&](int from, int64_t to) {
        output[to] = static_cast<scalar_t>(sums[from]);
      });
    }
  }
}

// The grid may have fewer boxes, too. With one box, one tile and one row of threads in it, each channel of
// the maps belongs to one thread, which makes the sums deterministic.
template <typename scalar_t, typename T, int kChannels>
__global__ void __launch_bounds__(kLanes* kRows) backward_kernel(
    const __grid_constant__ Call<T> call,
    const scalar_t* __restrict__ grad,
    const T* __restrict__ boxes,
    const int64_t* __restrict__ levels) {
  using Pixel = Vector<T, kChannels>;
  using CellLine = Line<T>;
  __shared__ T grads[kChannels * kLanes * kCells];
  __shared__ CellLine lines[kCells + 1];
  for (int64_t roi = blockIdx.x; roi < call.rois; roi += gridDim.x) {
    const T* box = boxes + 5 * roi;
    CUDA_KERNEL_ASSERT(box[0] >= 0 && box[0] < call.images && "pyramid_roi_align: image index out of range");
    for (int64_t group = blockIdx.y; group < call.groups; group += gridDim.y) {
      const int64_t first = group * kChannels * kLanes;
      const int channels = static_cast<int>(min(int64_t(kChannels * kLanes), call.channels - first));
      for (int index = blockIdx.z; index < call.tiles_down * call.tiles_across; index += gridDim.z) {
        const Tile<T> tile(call, index);
        __syncthreads(); // no thread reads the gradients of the previous tile any more
        const int64_t plane = roi * call.channels + first;
        tile.template for_each_cell<kChannels>(plane, channels, [&](int to, int64_t from) {
          grads[to] = static_cast<T>(grad[from]);
        });
        const auto add = [&](int cell, T* image, const CellLine& y, const CellLine& x) {
          if (threadIdx.x * kChannels >= channels) {
            return;
          }
          Pixel* corner = reinterpret_cast<Pixel*>(image + first + threadIdx.x * kChannels);
          for (int j = 0; j < y.count; ++j) {
            Pixel* row = after(corner, y.pixels[j].bytes);
            T row_grad[kChannels];
            for (int i = 0; i < kChannels; ++i) {
              row_grad[i] = y.pixels[j].weight * grads[(i * kLanes + threadIdx.x) * kCells + cell];
            }
#pragma unroll 4
            for (int k = 0; k < x.count; ++k) {
              const typename CellLine::Pixel read = x.pixels[k];
              T pixel_grad[kChannels];
              for (int i = 0; i < kChannels; ++i) {
                pixel_grad[i] = read.weight * row_grad[i];
              }
              add_to(after(row, read.bytes), pixel_grad);
            }
          }
        };
        tile.for_each_window(box, levels + roi * call.summed_maps, lines, add); // begins with a barrier
      }
    }
  }
}

// Describes a call in which a lane takes `lane_channels` channels.
template <typename data_t>
Call<data_t> describe(
    const Settings& settings, const Maps& maps, const at::Tensor& levels, int64_t lane_channels) {
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
  call.pixel_bytes = call.channels * sizeof(data_t);
  call.groups = (call.channels + kLanes * lane_channels - 1) / (kLanes * lane_channels);
  call.rois = levels.size(0);
  call.summed_maps = static_cast<int>(levels.size(1));
  call.rows = static_cast<int>(settings.rows);
  call.columns = static_cast<int>(settings.columns);
  call.tile_columns = std::min(call.columns, kCells);
  call.tile_rows = std::min(call.rows, kCells / call.tile_columns);
  call.tiles_down = (call.rows + call.tile_rows - 1) / call.tile_rows;
  call.tiles_across = (call.columns + call.tile_columns - 1) / call.tile_columns;
  return call;
}

// Tells whether each pixel of the maps can be read as vectors of `channels` channels.
bool have_vectors(const Maps& maps, int64_t channels) {
  return std::all_of(maps.begin(), maps.end(), [&](const at::Tensor& map) {
    const auto address = reinterpret_cast<uintptr_t>(map.data_ptr());
    return map.size(1) % channels == 0 && address % (channels * map.element_size()) == 0;
  });
}

template <typename data_t>
dim3 make_grid(const Call<data_t>& call) {
  constexpr int64_t most = 65535;
  TORCH_CHECK(call.rois <= 2147483647, "pyramid_roi_align: too many boxes for one launch: ", call.rois);
  const int64_t tiles = int64_t(call.tiles_down) * call.tiles_across;
  return dim3(call.rois, std::min(call.groups, most), std::min(tiles, most));
}

template <typename scalar_t, int kChannels>
void launch_forward(const Settings& settings, const ForwardTensors& tensors) {
  using T = at::opmath_type<scalar_t>;
  const auto call = describe<const scalar_t>(settings, tensors.maps, tensors.levels, kChannels);
  const dim3 grid = make_grid(call), threads(kLanes, kRows);
  forward_kernel<scalar_t, T, kChannels><<<grid, threads, 0, c10::cuda::getCurrentCUDAStream()>>>(
      call,
      tensors.boxes.const_data_ptr<T>(),
      tensors.levels.const_data_ptr<int64_t>(),
      tensors.output.mutable_data_ptr<scalar_t>());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename scalar_t, int kChannels>
void launch_backward(const Settings& settings, const BackwardTensors& tensors, bool ordered) {
  using T = at::opmath_type<scalar_t>;
  const auto call = describe<T>(settings, tensors.map_grads, tensors.levels, kChannels);
  dim3 grid = make_grid(call), threads(kLanes, kRows);
  if (ordered) {
    grid.x = grid.z = threads.y = 1;
  }
  backward_kernel<scalar_t, T, kChannels><<<grid, threads, 0, c10::cuda::getCurrentCUDAStream()>>>(
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
        constexpr int kMost = kVectorBytes / sizeof(at::opmath_type<scalar_t>);
        const bool at_once = have_vectors(tensors.maps, kMost);
        at_once ? launch_forward<scalar_t, kMost>(settings, tensors)
                : launch_forward<scalar_t, 1>(settings, tensors);
      });
}

void backward_cuda(const Settings& settings, const BackwardTensors& tensors) {
  if (tensors.grad.numel() == 0) {
    return;
  }
  // In order, the boxes take as long for one channel of a lane as for many.
  const bool ordered = at::globalContext().deterministicAlgorithms();
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, tensors.grad.scalar_type(), "pyramid_roi_align_backward", [&] {
        constexpr int kMost = kVectorBytes / sizeof(at::opmath_type<scalar_t>);
        const bool at_once = !ordered && have_vectors(tensors.map_grads, kMost);
        at_once ? launch_backward<scalar_t, kMost>(settings, tensors, ordered)
                : launch_backward<scalar_t, 1>(settings, tensors, ordered);
      });
}

} // namespace hybrid_cascade::pyramid_roi_align
