// Which pixels of the maps the boxes read, and where the CPU kernels find them. The legend is in roi_warp.h.
//
// Boxes are visited from top to bottom. The rows above the top of a box are not needed any more then, so that
// the rows that follow can take their places: what is packed stays in the cache.
#pragma once

#include "../channel_blocks.h"
#include "cpu_plan.h"

#include <limits>

namespace hybrid_cascade::roi_warp {

// Pixels of a row of a block of a map. The channels of a pixel, kBlock, are contiguous.
template <typename T>
struct Row {
  T* data; // of the column `first`
  int64_t step; // from one column to the next
  int first;

  INLINED T* pixel(int column) const {
    return data + (column - first) * step;
  }
};

// A block of a map, or some rows of it: row y has the place y modulo `places`.
template <typename T>
struct MapBlock {
  T* data; // null if the map is not wanted
  int64_t row_step, step; // from one row, and from one column, to the next
  int places;
  int first; // the first column
  int height; // of the whole map

  // Row y. If it lies outside of the map, `outside` stands for each of its pixels.
  INLINED Row<T> row(int y, T* outside) const {
    const bool is_inside = data && y >= 0 && y < height;
    return is_inside ? Row<T>{data + y % places * row_step, step, first} : Row<T>{outside, 0, 0};
  }
};

// The columns [begin, end); none if begin >= end.
struct Span {
  int begin = std::numeric_limits<int>::max(), end = 0;

  int size() const {
    return std::max(end - begin, 0);
  }
  void include(const Span& other) {
    begin = std::min(begin, other.begin);
    end = std::max(end, other.end);
  }
};

// What the boxes of one image read of its map.
struct Reading {
  std::vector<int64_t> rois; // from top to bottom
  std::vector<Span> rows; // of the map: the columns that are read
  Span columns; // that are read, of all rows
  int places = 1; // the most rows that are needed at a time: those of the highest box. At least 1

  // The size of the places of all rows, in one block.
  int64_t packed_size() const {
    return int64_t(places) * columns.size() * kBlock;
  }

  template <typename T>
  MapBlock<T> packed(T* data, int height) const {
    return {data, int64_t(columns.size()) * kBlock, kBlock, places, columns.begin, height};
  }
};

// Returns what is read of the map of each image.
template <typename T>
std::vector<Reading> find_read_pixels(const Warp& warp, const std::vector<Plan<T>>& plans) {
  std::vector<Reading> images(warp.images);
  for (int64_t roi = 0; roi < warp.rois; ++roi) {
    const Plan<T>& plan = plans[roi];
    Reading& image = images[plan.image];
    image.rois.push_back(roi);
    image.rows.resize(warp.height);
    if (plan.top == plan.bottom) {
      continue;
    }
    const Span columns{plan.pixels[plan.first], plan.pixels[plan.last - 1] + 1};
    image.columns.include(columns);
    image.places = std::max(image.places, plan.bottom - plan.top);
    for (const Sample<T>& sample : plan.rows) {
      for (int y = std::max(sample.low, 0); y < std::min(sample.low + 2, warp.height); ++y) {
        image.rows[y].include(columns);
      }
    }
  }
  for (Reading& image : images) {
    std::stable_sort(image.rois.begin(), image.rois.end(), [&](int64_t a, int64_t b) {
      return plans[a].top < plans[b].top;
    });
  }
  return images;
}

// The most that the rows of a block of an image need.
inline int64_t most_packed(const std::vector<Reading>& readings) {
  int64_t most = 0;
  for (const Reading& reading : readings) {
    most = std::max(most, reading.packed_size());
  }
  return most;
}

} // namespace hybrid_cascade::roi_warp
