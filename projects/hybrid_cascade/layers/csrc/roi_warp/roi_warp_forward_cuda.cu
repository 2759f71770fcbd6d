// RoI warp on CUDA devices: the forward pass. The legend is in roi_warp.h.
//
// A warp takes kChannels channels, four in each lane, and walks along the rows of samples of a row of cells,
// all of them together, from left to right. All its lanes take the same branches, since they share the box
// and its samples. A tile of cells is collected in shared memory, where it is transposed to the order of the
// output.
#include "cuda_columns.cuh"
#include "cuda_tile.cuh"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

namespace hybrid_cascade::roi_warp {
namespace {

// Computes the cells of a tile. kPool is the side of the windows; 0 stands for any. Then the rows of a window
// are walked one after another, and the maximum so far waits in shared memory.
template <typename scalar_t, int kPool, bool kArgmax, typename T>
__device__ void fill(const Tile<T>& tile, const Warp& warp, const LaneMap& map) {
  constexpr int kTogether = kPool > 0 ? kPool : 1; // rows of samples
  const int pool = kPool > 0 ? kPool : warp.pool;
  for (int row = threadIdx.y; row < tile.rows; row += blockDim.y) {
    for (int dy = 0; dy < pool; dy += kTogether) {
      Columns<scalar_t, T, kTogether, false> columns(map, tile.row_samples + row * pool + dy);
      const Sample<T>* x = tile.column_samples;
      for (int column = 0; column < tile.columns; ++column) {
        T best[kTogether][kPerLane]; // of each row of the window
        int best_dx[kTogether][kPerLane];
#pragma unroll kTogether
        for (int dx = 0; dx < pool; ++dx, ++x) {
          const Sample<T> sample = *x;
          if (sample.low != columns.held) {
            columns.move_to(sample.low);
          }
#pragma unroll
          for (int r = 0; r < kTogether; ++r) {
#pragma unroll
            for (int part = 0; part < kPerLane; ++part) {
              T value = interpolate(columns.left[r][part], columns.right[r][part], sample.weight);
              compute_here(value);
              if (!kArgmax) {
                best[r][part] = dx == 0 ? value : maximum(best[r][part], value);
              } else if (dx == 0 || replaces(value, best[r][part])) {
                best[r][part] = value;
                best_dx[r][part] = dx;
              }
            }
          }
        }
#pragma unroll
        for (int part = 0; part < kPerLane; ++part) {
          T value = best[0][part];
          int index = dy * pool + best_dx[0][part];
#pragma unroll
          for (int r = 1; r < kTogether; ++r) {
            if (!kArgmax) {
              value = maximum(value, best[r][part]);
            } else if (replaces(best[r][part], value)) {
              value = best[r][part];
              index = r * pool + best_dx[r][part];
            }
          }
          const int place = Tile<T>::place(threadIdx.x, part) + row * tile.columns + column;
          if (dy == 0 || replaces(value, tile.values[place])) {
            tile.values[place] = value;
            if (kArgmax) {
              tile.indices[place] = static_cast<uint8_t>(index);
            }
          }
        }
      }
    }
  }
}

// The grid is that of Tiling::grid.
template <typename scalar_t, typename T, int kPool, bool kArgmax>
__global__ void __launch_bounds__(kLanes* kWarps) forward_kernel(
    const Warp warp,
    const Tiling tiling,
    const char* __restrict__ input, // as to_quads returns it
    const uint32_t pixel_bytes,
    const T* __restrict__ boxes,
    scalar_t* __restrict__ output,
    uint8_t* __restrict__ argmax) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int64_t roi = blockIdx.x;
  const T* box = boxes + 5 * roi;
  CUDA_KERNEL_ASSERT(warp.has_image(box[0]) && "roi_warp: image index out of range");
  const char* image = input + static_cast<int64_t>(box[0]) * warp.height * warp.width * pixel_bytes;
  for (int64_t group = blockIdx.y; group < tiling.groups; group += gridDim.y) {
    const int64_t first = group * kChannels;
    const int channels = static_cast<int>(min(int64_t(kChannels), warp.channels - first));
    const int64_t lane_channel = first + threadIdx.x * kPerLane;
    const LaneMap map{
        lane_channel < warp.channels ? image + lane_channel * sizeof(scalar_t) : nullptr,
        pixel_bytes,
        warp.height,
        warp.width};
    for (int index = blockIdx.z; index < tiling.tiles(); index += gridDim.z) {
      const Tile<T> tile(memory, warp, tiling, index);
      tile.compute_samples(warp, warp.y_axis(box), warp.x_axis(box));
      __syncthreads(); // nor does any thread read the values of the previous tile any more
      fill<scalar_t, kPool, kArgmax>(tile, warp, map);
      __syncthreads();
      const int64_t cells = (roi * warp.channels + first) * warp.output_rows() * warp.output_columns();
      scalar_t* group_output = output + cells;
      uint8_t* group_argmax = kArgmax ? argmax + cells : nullptr;
      tile.for_each_cell(warp, channels, [=](int from, uint32_t to, bool exists) {
        if (exists) {
          *address(group_output, to) = static_cast<scalar_t>(tile.values[from]);
          if (kArgmax) {
            *address(group_argmax, to) = tile.indices[from];
          }
        }
      });
    }
  }
}

template <typename scalar_t, int kPool, bool kArgmax>
void launch(const Warp& warp, const ForwardTensors& tensors) {
  using T = at::opmath_type<scalar_t>;
  const at::Tensor quads = to_quads<scalar_t>(tensors.input);
  const Tiling tiling(warp, kCells<T>);
  constexpr int64_t most = 65535;
  const dim3 grid = tiling.grid(warp.rois, tiling.tiles(), most);
  const size_t bytes = tiling.bytes<T>(warp, kArgmax);
  const auto kernel = forward_kernel<scalar_t, T, kPool, kArgmax>;
  kernel<<<grid, dim3(kLanes, kWarps), bytes, c10::cuda::getCurrentCUDAStream()>>>(
      warp,
      tiling,
      static_cast<const char*>(quads.const_data_ptr()),
      quad_bytes(warp.channels, sizeof(scalar_t)),
      tensors.boxes.const_data_ptr<T>(),
      tensors.output.mutable_data_ptr<scalar_t>(),
      kArgmax ? tensors.argmax.mutable_data_ptr<uint8_t>() : nullptr);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

template <typename scalar_t>
void forward(const Warp& warp, const ForwardTensors& tensors) {
  const bool argmax = tensors.argmax.numel() > 0;
  switch (warp.pool) {
    case 1:
      return launch<scalar_t, 1, false>(warp, tensors);
    case 2:
      return argmax ? launch<scalar_t, 2, true>(warp, tensors) : launch<scalar_t, 2, false>(warp, tensors);
    default:
      return argmax ? launch<scalar_t, 0, true>(warp, tensors) : launch<scalar_t, 0, false>(warp, tensors);
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

} // namespace hybrid_cascade::roi_warp
