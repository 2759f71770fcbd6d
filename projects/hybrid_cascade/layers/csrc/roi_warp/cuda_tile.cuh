// What a thread block of RoI warp's CUDA kernels works on: a tile of the output cells of a box, in a group of
// channels. The legend is in roi_warp.h.
#pragma once

#include "cuda_pixels.cuh"

namespace hybrid_cascade::roi_warp {

constexpr int kChannels = kLanes * kPerLane; // of a thread block: its group of channels
constexpr int kWarps = 4; // of a thread block; each takes a row of cells at a time

// Cells of a tile, at most. 28 KB of values leave room for the rest in the 48 KB of shared memory that every
// GPU has: for the indices, and for the samples of at most kCells + 1 rows and columns of 16 x 16 windows.
template <typename T>
constexpr int kCells = 224 / sizeof(T);

// From a channel to the next in shared memory: odd, so that lanes use different banks.
template <typename T>
constexpr int kStride = kCells<T> | 1;

// How channels and output cells of a box are divided. A thread block works on one group and one tile at a
// time.
struct Tiling {
  int64_t groups; // of kChannels channels
  int rows, columns; // of cells in a full tile
  int tiles_down, tiles_across;

  Tiling(const Warp& warp, int cells) {
    groups = (warp.channels + kChannels - 1) / kChannels;
    columns = std::min(warp.output_columns(), cells);
    rows = std::min(warp.output_rows(), cells / columns);
    tiles_down = (warp.output_rows() + rows - 1) / rows;
    tiles_across = (warp.output_columns() + columns - 1) / columns;
  }
  C10_HOST_DEVICE int tiles() const {
    return tiles_down * tiles_across;
  }
  // What a tile takes of the shared memory: samples, values, and, if wanted, indices.
  template <typename T>
  size_t bytes(const Warp& warp, bool with_indices) const {
    return sizeof(Sample<T>) * (rows + columns) * warp.pool +
        (sizeof(T) + with_indices) * kChannels * kStride<T>;
  }
  // Boxes x groups x tiles, the latter two at most `most`: then a block takes several, in order.
  dim3 grid(int64_t boxes, int64_t tiles, int64_t most) const {
    TORCH_CHECK(boxes <= 2147483647, "roi_warp: too many boxes for one launch: ", boxes);
    // Without channels, the kernel still checks the boxes.
    return dim3(boxes, std::clamp<int64_t>(groups, 1, most), std::min(tiles, most));
  }
};

// A tile in shared memory: the samples of its rows and columns, and a value and an index for each cell of
// each channel. Indices are there if the memory has been asked for.
template <typename T>
struct Tile {
  Sample<T>* row_samples;
  Sample<T>* column_samples;
  T* values;
  uint8_t* indices;
  int first_row, first_column; // in cells
  int rows, columns; // in cells

  __device__ Tile(unsigned char* memory, const Warp& warp, const Tiling& tiling, int index) {
    row_samples = reinterpret_cast<Sample<T>*>(memory);
    column_samples = row_samples + tiling.rows * warp.pool;
    values = reinterpret_cast<T*>(column_samples + tiling.columns * warp.pool);
    indices = reinterpret_cast<uint8_t*>(values + kChannels * kStride<T>);
    first_row = index / tiling.tiles_across * tiling.rows;
    first_column = index % tiling.tiles_across * tiling.columns;
    rows = min(tiling.rows, warp.output_rows() - first_row);
    columns = min(tiling.columns, warp.output_columns() - first_column);
  }

  // The place, in `values` and `indices`, of the first cell of a lane's channel `part`. Neighbouring lanes
  // lie kStride apart, to use different banks, though their channels lie kPerLane apart.
  static __device__ int place(int lane, int part) {
    return (part * kLanes + lane) * kStride<T>;
  }

  __device__ void compute_samples(const Warp& warp, const Axis<T>& y, const Axis<T>& x) const {
    const int thread = threadIdx.y * kLanes + threadIdx.x;
    for (int i = thread; i < rows * warp.pool; i += kLanes * blockDim.y) {
      row_samples[i] = y.sample(first_row * warp.pool + i);
    }
    for (int i = thread; i < columns * warp.pool; i += kLanes * blockDim.y) {
      column_samples[i] = x.sample(first_column * warp.pool + i);
    }
  }

  // Calls visit(place in shared memory, place in the output, whether the channel exists) for all cells of all
  // channels of the group, of which `channels` exist. The output is counted from the first cell of the
  // group's first channel; 32 bits suffice, as boxes have at most 4096 x 4096 cells. Neighbouring threads
  // visit neighbouring cells.
  template <typename Visit>
  __device__ void for_each_cell(const Warp& warp, int channels, Visit visit) const {
    const uint32_t plane = warp.output_rows() * warp.output_columns();
    for (int cell = threadIdx.x; cell < rows * columns; cell += kLanes) {
      const int row = first_row + cell / columns, column = first_column + cell % columns;
      uint32_t to = threadIdx.y * kPerLane * plane + row * warp.output_columns() + column;
      int lane = threadIdx.y;
      for (; (lane + 1) * kPerLane <= channels; lane += blockDim.y) { // without further checks
#pragma unroll
        for (int part = 0; part < kPerLane; ++part) {
          visit(place(lane, part) + cell, to + part * plane, true);
        }
        to += blockDim.y * kPerLane * plane;
      }
      for (; lane < kLanes; lane += blockDim.y) {
        for (int part = 0; part < kPerLane; ++part) {
          visit(place(lane, part) + cell, to + part * plane, lane * kPerLane + part < channels);
        }
        to += blockDim.y * kPerLane * plane;
      }
    }
  }
};

} // namespace hybrid_cascade::roi_warp
