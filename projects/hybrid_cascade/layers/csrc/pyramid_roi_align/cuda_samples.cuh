// What a box reads of a map along one axis. The samples are those of torchvision's roi_align. The legend is
// in pyramid_roi_align.h.
#pragma once

#include <c10/macros/Macros.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace hybrid_cascade::pyramid_roi_align {

// How a map is pooled along one axis.
struct AxisPooling {
  double scale;
  int bins, sampling_ratio;
  bool aligned;
  int size; // of the map, in pixels
};

// The pixels that a cell reads within a window of kWindow pixels, each once, with the sums of the weights of
// all samples. They are ascending.
template <typename T>
struct Line {
  static constexpr int kWindow = 16; // most cells read no more, along an axis

  struct alignas(16) Pixel { // which a lane reads at once
    int64_t bytes; // from pixel 0 of the axis
    T weight;
  };
  Pixel pixels[kWindow];
  int count;
};

template <typename T>
struct Samples {
  T start, bin; // in pixels of the map
  int bins, count; // `count` samples in each bin
  int size, cells;

  // The box reaches from `low` to `high`. As on the CPU, a box that is not a number, absurdly large, or
  // aligned and without length has no samples where their number depends on it.
  C10_DEVICE Samples(T low, T high, const AxisPooling& pooling, int cells)
      : bins(pooling.bins), size(pooling.size), cells(cells) {
    const T offset = pooling.aligned ? T(0.5) : T(0);
    start = low * T(pooling.scale) - offset;
    T length = high * T(pooling.scale) - offset - start;
    if (!pooling.aligned && length < T(1)) {
      length = T(1);
    }
    bin = length / T(bins);
    const T wanted = pooling.sampling_ratio > 0 ? T(pooling.sampling_ratio) : std::ceil(bin);
    constexpr T most = 1 << 20;
    const bool is_usable = std::isfinite(start) && std::isfinite(length) && wanted <= most;
    count = is_usable && wanted >= 1 ? static_cast<int>(wanted) : 0;
  }

  // The windows that hold all pixels of any cell: the same number for all threads that work on the box.
  C10_DEVICE int windows() const {
    if (count == 0) {
      return 0;
    }
    const int bins_of_cell = (bins + cells - 1) / cells + (bins % cells != 0);
    const T reach = std::abs(bin) * T(bins_of_cell) + T(3);
    return ((reach < T(size) ? static_cast<int>(reach) : size) - 1) / Line<T>::kWindow + 1;
  }

  // Describes what a cell reads in a window. It is the mean of the bins that it touches, as in adaptive
  // average pooling, and samples outside of the map count as zeros. From a pixel to the next one there are
  // `stride` bytes.
  C10_DEVICE void fill(Line<T>& line, int cell, int window, int64_t stride) const {
    const int first_bin = cell * bins / cells, last_bin = ((cell + 1) * bins - 1) / cells;
    // Positions descend where the box is reversed.
    const T first = position(first_bin, 0), last = position(last_bin, count - 1);
    const int low = nearest_pixel(first < last ? first : last) + window * Line<T>::kWindow;
    // The pixel after the last one may lie outside of the map. It then has no weight.
    const int length = min(nearest_pixel(first < last ? last : first) + 2 - low, Line<T>::kWindow);
    for (int i = 0; i < length; ++i) {
      line.pixels[i].weight = T(0);
    }
    for (int b = first_bin; length > 0 && b <= last_bin; ++b) {
      add_bin(line, b, low, length);
    }
    const T total = T(last_bin - first_bin + 1) * T(count);
    line.count = 0;
    for (int i = 0; i < length; ++i) {
      const T weight = line.pixels[i].weight;
      if (weight != 0) {
        line.pixels[line.count++] = {(low + i) * stride, weight / total};
      }
    }
  }

 private:
  static constexpr int kFew = 8;

  C10_DEVICE T position(int b, int i) const {
    return start + T(b) * bin + (T(i) + T(0.5)) * bin / T(count);
  }

  C10_DEVICE int nearest_pixel(T position) const {
    return position < 0 ? 0 : position > T(size - 1) ? size - 1 : static_cast<int>(position);
  }

  // Adds the weights of the samples of a bin to the pixels from `low` on.
  C10_DEVICE void add_bin(Line<T>& line, int b, int low, int length) const {
    const T bin_start = start + T(b) * bin, step = bin / T(count);
    int i = 0, end = count;
    if (count > kFew && step > 0) { // a bin may be much longer than the window: start where it reaches it
      i = bound((T(low - 1) - bin_start) / step - T(2));
      end = bound((T(low + length) - bin_start) / step + T(2));
    }
    for (; i < end; ++i) {
      const T at = position(b, i);
      if (at < T(-1) || at > T(size)) {
        continue;
      }
      const T inside = at < 0 ? T(0) : at > T(size - 1) ? T(size - 1) : at;
      const int pixel = static_cast<int>(inside), index = pixel - low;
      const T weight = inside - T(pixel);
      if (index >= 0 && index < length) {
        line.pixels[index].weight += T(1) - weight;
      }
      if (weight > 0 && index >= -1 && index + 1 < length) {
        line.pixels[index + 1].weight += weight;
      }
    }
  }

  C10_DEVICE int bound(T index) const {
    return index < 0 ? 0 : index > T(count) ? count : static_cast<int>(index);
  }
};

} // namespace hybrid_cascade::pyramid_roi_align
