// RoI warp of one box in one block of channels on the CPU: the inner loops. The legend is in roi_warp.h.
//
// The kernel is separable: a row of samples is interpolated along y once, only in the columns that the box
// reads, and then along x.
#pragma once

#include "cpu_reading.h"

#include <algorithm>
#include <limits>
#include <type_traits>

namespace hybrid_cascade::roi_warp {

template <typename T>
using Index = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>; // as wide as T, for vectors

template <typename T>
inline constexpr T kZeros[kBlock] = {}; // a pixel outside of the map

// Fills `row` (pixels, kBlock): one row of samples, interpolated along y, in the columns that the box reads.
template <typename T>
INLINED void interpolate_row(
    const MapBlock<const T>& map, const Plan<T>& plan, const Sample<T>& sample, T* __restrict row) {
  const Row<const T> top = map.row(sample.low, kZeros<T>), bottom = map.row(sample.low + 1, kZeros<T>);
  const T weight = sample.weight;
  std::fill_n(row, plan.first * kBlock, T(0));
  for (size_t i = plan.first; i < plan.last; ++i) {
    const T* high = top.pixel(plan.pixels[i]);
    const T* low = bottom.pixel(plan.pixels[i]);
    for (int c = 0; c < kBlock; ++c) {
      row[i * kBlock + c] = interpolate(high[c], low[c], weight);
    }
  }
  std::fill_n(row + plan.last * kBlock, (plan.pixels.size() - plan.last) * kBlock, T(0));
}

// Fills `cells` and `argmax` (H / pool * W / pool, kBlock). `row` has room for `pool` rows of samples.
template <bool keep_argmax, typename T>
INLINED void warp_block(
    const Warp& warp,
    const MapBlock<const T>& map,
    const Plan<T>& plan,
    T* row,
    T* __restrict cells,
    Index<T>* __restrict argmax) {
  const int64_t row_size = plan.pixels.size() * kBlock;
  for (int y = 0; y < warp.rows; y += warp.pool) {
    for (int dy = 0; dy < warp.pool; ++dy) {
      interpolate_row(map, plan, plan.rows[y + dy], row + dy * row_size);
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
// `argmax` is null without max pooling, the data of `map` if the gradient of the box is not wanted, those of
// `map_grad` if that of the features is not wanted.
template <typename T>
INLINED void warp_block_backward(
    const Warp& warp,
    const T* __restrict cells,
    const Index<T>* __restrict argmax,
    const MapBlock<const T>& map,
    const Plan<T>& plan,
    T* __restrict row,
    T* __restrict row_grad,
    const MapBlock<T>& map_grad,
    T* __restrict sums) {
  for (int y = 0; y < warp.rows; ++y) {
    const Sample<T> y_sample = plan.rows[y];
    if (plan.is_row_outside(y_sample)) {
      continue;
    }
    if (map.data) {
      interpolate_row(map, plan, y_sample, row);
    }
    std::fill_n(row_grad, plan.pixels.size() * kBlock, T(0));
    for (int x = 0; x < warp.columns; ++x) {
      const Sample<T> sample = plan.columns[x];
      if (plan.is_column_outside(sample)) {
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
      if (map.data) {
        const T fraction = plan.column_fractions[x];
        for (int c = 0; c < kBlock; ++c) {
          const T term = grad[c] * (row[left + kBlock + c] - row[left + c]);
          sums[kX * kBlock + c] += term;
          sums[kXFraction * kBlock + c] += fraction * term;
        }
      }
    }
    T outside[kBlock] = {}; // takes what nobody wants
    const Row<T> top_grad = map_grad.row(y_sample.low, outside);
    const Row<T> bottom_grad = map_grad.row(y_sample.low + 1, outside);
    const Row<const T> top = map.row(y_sample.low, kZeros<T>);
    const Row<const T> bottom = map.row(y_sample.low + 1, kZeros<T>);
    T y_sums[kBlock] = {};
    for (size_t i = plan.first; i < plan.last; ++i) {
      const T* grad = row_grad + i * kBlock;
      if (map_grad.data) {
        T* top_sum = top_grad.pixel(plan.pixels[i]);
        T* bottom_sum = bottom_grad.pixel(plan.pixels[i]);
        for (int c = 0; c < kBlock; ++c) {
          const T share = y_sample.weight * grad[c];
          top_sum[c] += grad[c] - share;
          bottom_sum[c] += share;
        }
      }
      if (map.data) {
        const T* high = top.pixel(plan.pixels[i]);
        const T* low = bottom.pixel(plan.pixels[i]);
        for (int c = 0; c < kBlock; ++c) {
          y_sums[c] += grad[c] * (low[c] - high[c]);
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
