// What each box reads of each map, with which weights. The legend is in pyramid_roi_align.h.
//
// The samples are those of torchvision's roi_align. The weight of a sample is a product of a weight along y
// and one along x, so the sum over the samples of a cell is a product of two sums, too. Hence the weights of
// all samples of a cell are added up along each axis first.
#pragma once

#include "pyramid_roi_align.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace hybrid_cascade::pyramid_roi_align {

constexpr int64_t kMostSamples = 1 << 20; // of a bin along an axis

template <typename T>
struct Weight {
  int64_t at; // of a pixel: its row, or its index in Plan::pixels
  T weight;
};

// How a map is pooled along one axis.
struct Pooling {
  double scale;
  int64_t bins, sampling_ratio;
  bool aligned;
};

// Along one axis, the pixels that each cell reads: those of cell i are [begin[i], begin[i + 1]).
template <typename T>
struct Axis {
  std::vector<Weight<T>> weights;
  std::vector<size_t> begin{0};

  // The box reaches from `low` to `high`, the map has `size` pixels along this axis.
  Axis(T low, T high, const Pooling& pooling, int64_t cells, int64_t size) {
    const int64_t bins = pooling.bins;
    const T offset = pooling.aligned ? T(0.5) : T(0);
    const T start = low * T(pooling.scale) - offset;
    T length = high * T(pooling.scale) - offset - start;
    if (!pooling.aligned) {
      length = std::max(length, T(1));
    }
    const T bin = length / T(bins);
    const T wanted = pooling.sampling_ratio > 0 ? T(pooling.sampling_ratio) : std::ceil(bin);
    // Where the number of samples depends on the box, an aligned box without length has none. Unlike in
    // roi_align, a reversed box then has none either, and never one that is not a number or absurdly large.
    const bool is_usable = std::isfinite(start) && std::isfinite(length) && wanted <= kMostSamples;
    const int64_t samples = is_usable && wanted >= 1 ? wanted : 0;
    std::vector<T> dense(size, T(0)); // the weights of the pixels of a cell
    for (int64_t cell = 0; cell < cells; ++cell) {
      // The cell touches these bins, as in adaptive average pooling.
      const int64_t first_bin = cell * bins / cells, last_bin = ((cell + 1) * bins - 1) / cells;
      const T total = T((last_bin - first_bin + 1) * samples);
      int64_t first = size, last = -1;
      for (int64_t i = first_bin * samples; i < (last_bin + 1) * samples; ++i) {
        const T position = start + T(i / samples) * bin + (T(i % samples) + T(0.5)) * bin / T(samples);
        if (position < T(-1) || position > T(size)) {
          continue;
        }
        const T inside = std::min(std::max(position, T(0)), T(size - 1));
        const int64_t pixel = inside;
        const T weight = inside - T(pixel);
        dense[pixel] += (T(1) - weight) / total;
        if (weight > 0) {
          dense[pixel + 1] += weight / total;
        }
        first = std::min(first, pixel);
        last = std::max(last, pixel + (weight > 0));
      }
      for (int64_t pixel = first; pixel <= last; ++pixel) {
        if (dense[pixel] != 0) {
          weights.push_back({pixel, dense[pixel]});
          dense[pixel] = 0;
        }
      }
      begin.push_back(weights.size());
    }
  }
};

// What a box reads of one map.
template <typename T>
struct Plan {
  int64_t map; // its index
  int64_t image;
  Axis<T> y, x;
  std::vector<int64_t> pixels; // the columns that are read, ascending

  Plan(int64_t map, int64_t image, Axis<T> y_axis, Axis<T> x_axis)
      : map(map), image(image), y(std::move(y_axis)), x(std::move(x_axis)) {
    for (const Weight<T>& weight : x.weights) {
      pixels.push_back(weight.at);
    }
    std::sort(pixels.begin(), pixels.end());
    pixels.erase(std::unique(pixels.begin(), pixels.end()), pixels.end());
    for (Weight<T>& weight : x.weights) {
      weight.at = std::lower_bound(pixels.begin(), pixels.end(), weight.at) - pixels.begin();
    }
  }
};

// Returns the plans of one box, one for each of its maps. `box` and `levels` are its rows of the boxes (R, 5)
// and of the levels (R, S).
template <typename T>
std::vector<Plan<T>> plan_box(
    const Settings& settings, const Maps& maps, const T* box, const int64_t* levels, int64_t summed_maps) {
  std::vector<Plan<T>> plans;
  for (int64_t i = 0; i < summed_maps; ++i) {
    const int64_t level = levels[i];
    if (level < 0 || level >= static_cast<int64_t>(maps.size())) {
      continue;
    }
    Pooling pooling{
        settings.scales[level],
        settings.bin_rows[level],
        settings.sampling_ratios[level],
        settings.aligned[level]};
    const at::Tensor& map = maps[level];
    Axis<T> y(box[2], box[4], pooling, settings.rows, map.size(2));
    pooling.bins = settings.bin_columns[level];
    Axis<T> x(box[1], box[3], pooling, settings.columns, map.size(3));
    plans.emplace_back(level, static_cast<int64_t>(box[0]), std::move(y), std::move(x));
  }
  return plans;
}

// Returns the plans of each box; an image index out of range is an IndexError.
template <typename T>
std::vector<std::vector<Plan<T>>> make_plans(
    const Settings& settings, const Maps& maps, const at::Tensor& boxes, const at::Tensor& levels) {
  const T* data = boxes.const_data_ptr<T>();
  const int64_t images = maps[0].size(0), rois = boxes.size(0), summed_maps = levels.size(1);
  for (int64_t roi = 0; roi < rois; ++roi) {
    const T index = data[5 * roi];
    TORCH_CHECK_INDEX(
        index >= 0 && index < images,
        "pyramid_roi_align: box ",
        roi,
        " has image index ",
        index,
        ", the maps have ",
        images,
        " images");
  }
  std::vector<std::vector<Plan<T>>> plans(rois);
  at::parallel_for(0, rois, 1, [&](int64_t begin, int64_t end) {
    for (int64_t roi = begin; roi < end; ++roi) {
      plans[roi] = plan_box(
          settings, maps, data + 5 * roi, levels.const_data_ptr<int64_t>() + summed_maps * roi, summed_maps);
    }
  });
  return plans;
}

} // namespace hybrid_cascade::pyramid_roi_align
