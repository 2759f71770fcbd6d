// Where each box samples its map. The legend is in roi_warp.h.
#pragma once

#include "roi_warp.h"

#include <algorithm>
#include <vector>

namespace hybrid_cascade::roi_warp {

// The most that Plan::pixels can hold.
inline int64_t most_pixels(const Warp& warp) {
  return 2 * int64_t(warp.columns) + 2;
}

// The samples of one box.
template <typename T>
struct Plan {
  int64_t image;
  std::vector<Sample<T>> rows; // low is a row of the map
  std::vector<T> row_fractions;
  std::vector<Sample<T>> columns; // low is an index into `pixels`
  std::vector<T> column_fractions;
  std::vector<int> pixels; // the columns that are read, ascending
  size_t first, last; // of `pixels`, those in [first, last) lie in the map; the others are zero
  int top = 0, bottom = 0; // the rows of the map that are read are in [top, bottom)

  Plan(const Warp& warp, const T* box) : image(static_cast<int64_t>(box[0])) {
    const Axis<T> y = warp.y_axis(box);
    for (int i = 0; i < warp.rows; ++i) {
      rows.push_back(y.sample(i));
      row_fractions.push_back(y.fraction(i));
    }
    const Axis<T> x = warp.x_axis(box);
    for (int i = 0; i < warp.columns; ++i) {
      columns.push_back(x.sample(i));
      column_fractions.push_back(x.fraction(i));
    }
    const auto is_outside = [](const Sample<T>& sample) {
      return sample.low == kOutside;
    };
    if (std::any_of(columns.begin(), columns.end(), is_outside)) {
      pixels = {kOutside, kOutside + 1}; // which these samples read
    }
    for (int i = 0; i < warp.columns; ++i) {
      Sample<T>& sample = columns[x.extent < 0 ? warp.columns - 1 - i : i]; // from left to right
      if (is_outside(sample)) {
        sample.low = 0;
        continue;
      }
      for (const int pixel : {sample.low, sample.low + 1}) {
        if (pixels.empty() || pixels.back() < pixel) {
          pixels.push_back(pixel);
        }
      }
      sample.low = static_cast<int>(pixels.size()) - 2;
    }
    const auto left = std::lower_bound(pixels.begin(), pixels.end(), 0);
    first = left - pixels.begin();
    last = std::lower_bound(left, pixels.end(), warp.width) - pixels.begin();
    if (first < last) {
      find_read_rows(warp.height);
    }
  }

  // Whether a sample, of `rows` or of `columns`, reads only zeros.
  bool is_row_outside(const Sample<T>& sample) const {
    return sample.low == kOutside;
  }
  bool is_column_outside(const Sample<T>& sample) const {
    return pixels[sample.low] == kOutside;
  }

 private:
  void find_read_rows(int height) {
    top = height;
    for (const Sample<T>& sample : rows) {
      if (!is_row_outside(sample)) {
        top = std::min(top, std::max(sample.low, 0));
        bottom = std::max(bottom, std::min(sample.low + 2, height));
      }
    }
    top = std::min(top, bottom);
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
