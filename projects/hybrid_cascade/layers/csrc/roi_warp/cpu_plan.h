// Where each box samples its packed map. The legend is in roi_warp.h.
#pragma once

#include "cpu_packed_maps.h"

#include <vector>

namespace hybrid_cascade::roi_warp {

// The most that Plan::pixels can hold.
inline int64_t most_pixels(const Warp& warp) {
  return 2 * int64_t(warp.columns) + 2;
}

// The samples of one box, in coordinates of the packed map.
template <typename T>
struct Plan {
  int64_t image;
  std::vector<Sample<T>> rows; // low is a row of the packed map
  std::vector<T> row_fractions;
  std::vector<Sample<T>> columns; // low is an index into `pixels`
  std::vector<T> column_fractions;
  std::vector<int> pixels; // the columns of the packed map that are read, ascending

  Plan(const Warp& warp, const T* box) : image(static_cast<int64_t>(box[0])) {
    const Axis<T> y = warp.y_axis(box);
    for (int i = 0; i < warp.rows; ++i) {
      const Sample<T> sample = y.sample(i);
      rows.push_back({sample.low + kBefore, sample.weight});
      row_fractions.push_back(y.fraction(i));
    }
    const Axis<T> x = warp.x_axis(box);
    columns.resize(warp.columns);
    column_fractions.resize(warp.columns);
    pixels = {0, 1}; // zeros, for the samples outside
    for (int i = 0; i < warp.columns; ++i) {
      const int at = x.extent < 0 ? warp.columns - 1 - i : i; // from left to right
      const Sample<T> sample = x.sample(at);
      column_fractions[at] = x.fraction(at);
      if (sample.low == kOutside) {
        columns[at] = {0, sample.weight};
        continue;
      }
      const int low = sample.low + kBefore;
      for (const int pixel : {low, low + 1}) {
        if (pixels.back() < pixel) {
          pixels.push_back(pixel);
        }
      }
      columns[at] = {static_cast<int>(pixels.size()) - 2, sample.weight};
    }
  }

  // Whether a sample, of `rows` or of `columns`, reads the map and not only zeros.
  bool reads(const Sample<T>& sample) const {
    return sample.low != 0;
  }
};

// Returns a plan for each box; an image index out of range is an IndexError.
template <typename T>
std::vector<Plan<T>> make_plans(const Warp& warp, const at::Tensor& boxes) {
  const T* data = boxes.const_data_ptr<T>();
  std::vector<Plan<T>> plans;
  plans.reserve(warp.rois);
  for (int64_t roi = 0; roi < warp.rois; ++roi) {
    const T* box = data + 5 * roi;
    TORCH_CHECK_INDEX(
        warp.has_image(box[0]),
        "roi_warp: box ",
        roi,
        " has image index ",
        box[0],
        ", the input has ",
        warp.images,
        " images");
    plans.emplace_back(warp, box);
  }
  return plans;
}

} // namespace hybrid_cascade::roi_warp
