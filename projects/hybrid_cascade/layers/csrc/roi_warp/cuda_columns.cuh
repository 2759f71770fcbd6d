// A walk of RoI warp's CUDA kernels along the samples of a box. The legend is in roi_warp.h.
#pragma once

#include "cuda_pixels.cuh"

namespace hybrid_cascade::roi_warp {

// The two columns of pixels that samples lie between, for kRows rows of samples and the channels of a lane:
// interpolated along y, and, with kSlopes, their derivatives by y. Reads the next column when the walk passes
// one.
template <typename scalar_t, typename T, int kRows, bool kSlopes>
struct Columns {
  using Values = T[kRows][kPerLane];

  const int width; // of the map
  PixelRow top[kRows], bottom[kRows];
  T weight[kRows]; // of the bottom row
  // The place of the left column. Those that a sample outside of the map reads, kOutside and the next, are
  // zero.
  int held = kOutside;
  Values left = {}, right = {}, left_slope = {}, right_slope = {};

  __device__ Columns(const LaneMap& map, const Sample<T>* rows) : width(map.width) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      top[row] = map.row(rows[row].low);
      bottom[row] = map.row(rows[row].low + 1);
      weight[row] = rows[row].weight;
    }
  }

  // Makes x, another place than before, the place of the left column.
  __device__ void move_to(int x) {
    if (x >= 0 && x < width - 1) {
      if (x == held + 1) {
        copy(right, left);
        copy(right_slope, left_slope);
      } else {
        read(x, left, left_slope);
      }
      read(x + 1, right, right_slope);
    } else { // one or both lie outside of the map
      clear(left);
      clear(right);
      clear(left_slope);
      clear(right_slope);
      if (x == -1 && width > 0) {
        read(0, right, right_slope);
      } else if (x >= 0) {
        read(x, left, left_slope);
      }
    }
    held = x;
  }

 private:
  __device__ void read(int x, Values& column, Values& slope) const {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      T above[kPerLane], below[kPerLane];
      top[row].template read<scalar_t>(x, above);
      bottom[row].template read<scalar_t>(x, below);
#pragma unroll
      for (int part = 0; part < kPerLane; ++part) {
        column[row][part] = interpolate(above[part], below[part], weight[row]);
        if (kSlopes) {
          slope[row][part] = below[part] - above[part];
        }
      }
    }
  }
};

} // namespace hybrid_cascade::roi_warp
