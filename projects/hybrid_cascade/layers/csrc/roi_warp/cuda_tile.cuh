// What a thread block of RoI warp's CUDA kernels works on: a tile of the output cells of a box, and a channel
// of the map. The legend is in roi_warp.h.
#pragma once

#include "roi_warp.h"

#include <algorithm>

namespace hybrid_cascade::roi_warp {

constexpr int kLanes = 32; // channels of a thread block
constexpr int kRows = 8; // rows of samples that a thread block takes at a time
constexpr int kTileBytes = 32 * 1024; // of the values in a tile, at most
constexpr size_t kSharedMemory = 48 * 1024; // which every GPU has, without asking for more

// How the output cells of a box are divided into tiles. A thread block works on one tile at a time.
struct Tiling {
  int64_t groups; // of the channels
  int rows, columns; // of cells in a full tile
  int tiles_down, tiles_across;

  Tiling(const Warp& warp, size_t cell_bytes) {
    groups = (warp.channels + kLanes - 1) / kLanes;
    const int cells = kTileBytes / (kLanes * cell_bytes);
    columns = std::min(warp.output_columns(), cells);
    rows = std::min(warp.output_rows(), cells / columns);
    // With large windows, the samples of a long row need much of the memory.
    while (bytes(warp, cell_bytes) > kSharedMemory) {
      int& longer = rows > columns ? rows : columns;
      longer = (longer + 1) / 2;
    }
    tiles_down = (warp.output_rows() + rows - 1) / rows;
    tiles_across = (warp.output_columns() + columns - 1) / columns;
  }
  __host__ __device__ int tiles() const {
    return tiles_down * tiles_across;
  }
  // What a tile takes of the shared memory: samples of two numbers each, and a value and an index for each
  // cell of each lane.
  size_t bytes(const Warp& warp, size_t cell_bytes) const {
    return 2 * cell_bytes * (rows + columns) * warp.pool + (cell_bytes + 1) * kLanes * lane_stride();
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

  static_assert(sizeof(Sample<T>) == 2 * sizeof(T)); // as Tiling counts

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

  __device__ void compute_samples(const Warp& warp, const Axis<T>& y, const Axis<T>& x) const {
    const int thread = threadIdx.y * kLanes + threadIdx.x;
    for (int i = thread; i < rows * warp.pool; i += kLanes * blockDim.y) {
      row_samples[i] = y.sample(first_row * warp.pool + i);
    }
    for (int i = thread; i < columns * warp.pool; i += kLanes * blockDim.y) {
      column_samples[i] = x.sample(first_column * warp.pool + i);
    }
  }

  // Calls visit(index in shared memory, index in the output) for all cells of all channels. Neighbouring
  // threads visit neighbouring places of both. `plane` is the index of the first channel in the output.
  template <typename Visit>
  __device__ void for_each_cell(const Warp& warp, int64_t plane, int channels, Visit visit) const {
    for (int lane = threadIdx.y; lane < channels; lane += blockDim.y) {
      const int64_t first = ((plane + lane) * warp.output_rows() + first_row) * width + first_column;
      for (int cell = threadIdx.x; cell < rows * columns; cell += kLanes) {
        const int64_t offset = columns == width ? cell : int64_t(cell / columns) * width + cell % columns;
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

} // namespace hybrid_cascade::roi_warp
