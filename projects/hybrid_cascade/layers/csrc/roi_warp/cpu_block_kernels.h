// RoI warp of one box in one block of channels on the CPU: the inner loops. The legend is in roi_warp.h.
//
// The kernel is separable: a row of samples is interpolated along y once, only in the columns that the box
// reads, and then along x.
#pragma once

#include "cpu_plan.h"

#include <algorithm>
#include <limits>
#include <type_traits>

namespace hybrid_cascade::roi_warp {

template <typename T>
using Index = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>; // as wide as T, for vectors

// Fills `row` (pixels, kBlock): one row of samples, interpolated along y, in the columns that the box reads.
template <typename T>
INLINED void interpolate_row(
    const T* __restrict map,
    int64_t row_size,
    const Plan<T>& plan,
    const Sample<T>& sample,
    T* __restrict row) {
  const T* top = map + sample.low * row_size;
  const T weight = sample.weight;
  for (const int pixel : plan.pixels) {
    const T* high = top + int64_t(pixel) * kBlock;
    for (int c = 0; c < kBlock; ++c) {
      row[c] = interpolate(high[c], high[row_size + c], weight);
    }
    row += kBlock;
  }
}

// Fills `cells` and `argmax` (H / pool * W / pool, kBlock). `row` has room for `pool` rows of samples.
template <bool keep_argmax, typename T>
INLINED void warp_block(
    const Warp& warp,
    const T* map,
    const Plan<T>& plan,
    T* row,
    T* __restrict cells,
    Index<T>* __restrict argmax) {
  const int64_t map_row = packed_row_size(warp);
  const int64_t row_size = plan.pixels.size() * kBlock;
  for (int y = 0; y < warp.rows; y += warp.pool) {
    for (int dy = 0; dy < warp.pool; ++dy) {
      interpolate_row(map, map_row, plan, plan.rows[y + dy], row + dy * row_size);
    }
    for (int x = 0; x < warp.columns; x += warp.pool) {
      T best[kBlock];
      std::fill_n(best, kBlock, -std::numeric_limits<T>::infinity());
      Index<T> best_index[kBlock] = {};
      for (int dy = 0; dy < warp.pool; ++dy) {
        for (int dx = 0; dx < warp.pool; ++dx) {
          const Sample<T> sample = plan.columns[x + dx];
          const T* left = row + dy * row_size + int64_t(sample.low) * kBlock;
          const Index<T> index = dy * warp.pool + dx;
          for (int c = 0; c < kBlock; ++c) {
            const T value = interpolate(left[c], left[c + kBlock], sample.weight);
            if (keep_argmax) {
              best_index[c] = replaces(value, best[c]) ? index : best_index[c];
            }
            best[c] = replaces(value, best[c]) ? value : best[c];
          }
        }
      }
      std::copy_n(best, kBlock, cells);
      cells += kBlock;
      if (keep_argmax) {
        std::copy_n(best_index, kBlock, argmax);
        argmax += kBlock;
      }
    }
  }
}

// Adds to `map_grad`, and to the sums of the box: channel c of a BoxSum is sums[kBlock * (the BoxSum) + c].
// `argmax` is null without max pooling, `map` if the gradient of the box is not wanted, `map_grad` if that of
// the features is not wanted.
template <typename T>
INLINED void warp_block_backward(
    const Warp& warp,
    const T* __restrict cells,
    const Index<T>* __restrict argmax,
    const T* __restrict map,
    const Plan<T>& plan,
    T* __restrict row,
    T* __restrict row_grad,
    T* __restrict map_grad,
    T* __restrict sums) {
  const int64_t map_row = packed_row_size(warp);
  for (int y = 0; y < warp.rows; ++y) {
    const Sample<T> y_sample = plan.rows[y];
    if (!plan.reads(y_sample)) {
      continue;
    }
    if (map) {
      interpolate_row(map, map_row, plan, y_sample, row);
    }
    std::fill_n(row_grad, plan.pixels.size() * kBlock, T(0));
    for (int x = 0; x < warp.columns; ++x) {
      const Sample<T> sample = plan.columns[x];
      if (!plan.reads(sample)) {
        continue;
      }
      const int64_t cell = int64_t(y / warp.pool) * warp.output_columns() + x / warp.pool;
      T grad[kBlock];
      std::copy_n(cells + cell * kBlock, kBlock, grad);
      if (argmax) {
        const Index<T> index = y % warp.pool * warp.pool + x % warp.pool;
        for (int c = 0; c < kBlock; ++c) {
          grad[c] = argmax[cell * kBlock + c] == index ? grad[c] : T(0);
        }
      }
      const int64_t left = int64_t(sample.low) * kBlock;
      for (int c = 0; c < kBlock; ++c) {
        const T right_grad = sample.weight * grad[c];
        row_grad[left + c] += grad[c] - right_grad;
        row_grad[left + kBlock + c] += right_grad;
      }
      if (map) {
        const T fraction = plan.column_fractions[x];
        for (int c = 0; c < kBlock; ++c) {
          const T term = grad[c] * (row[left + kBlock + c] - row[left + c]);
          sums[kX * kBlock + c] += term;
          sums[kXFraction * kBlock + c] += fraction * term;
        }
      }
    }
    T y_sums[kBlock] = {};
    for (size_t i = 0; i < plan.pixels.size(); ++i) {
      const int64_t top = y_sample.low * map_row + int64_t(plan.pixels[i]) * kBlock;
      const T* grad = row_grad + i * kBlock;
      if (map_grad) {
        for (int c = 0; c < kBlock; ++c) {
          const T bottom_grad = y_sample.weight * grad[c];
          map_grad[top + c] += grad[c] - bottom_grad;
          map_grad[top + map_row + c] += bottom_grad;
        }
      }
      if (map) {
        for (int c = 0; c < kBlock; ++c) {
          y_sums[c] += grad[c] * (map[top + map_row + c] - map[top + c]);
        }
      }
    }
    const T fraction = plan.row_fractions[y];
    for (int c = 0; c < kBlock; ++c) {
      sums[kY * kBlock + c] += y_sums[c];
      sums[kYFraction * kBlock + c] += fraction * y_sums[c];
    }
  }
}

} // namespace hybrid_cascade::roi_warp
