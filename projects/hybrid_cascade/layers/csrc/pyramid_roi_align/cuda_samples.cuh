// Where a box samples a map, along one axis. The samples are those of torchvision's roi_align. The legend is
// in pyramid_roi_align.h.
#pragma once

#include <c10/macros/Macros.h>

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

template <typename T>
struct Samples {
  T start, bin; // in pixels of the map
  int bins, count; // `count` samples in each bin
  int size;

  // The box reaches from `low` to `high`. As on the CPU, a box that is not a number, absurdly large, or
  // aligned and without length has no samples where their number depends on it.
  C10_DEVICE Samples(T low, T high, const AxisPooling& pooling) : bins(pooling.bins), size(pooling.size) {
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

  // A cell, one of `cells`, is the mean of the bins that it touches, as in adaptive average pooling.
  C10_DEVICE int first_bin(int cell, int cells) const {
    return cell * bins / cells;
  }
  C10_DEVICE int last_bin(int cell, int cells) const {
    return ((cell + 1) * bins - 1) / cells;
  }

  // The samples of a cell, those outside of the map included, which read nothing.
  C10_DEVICE T number(int cell, int cells) const {
    return T(last_bin(cell, cells) - first_bin(cell, cells) + 1) * T(count);
  }

  // Calls visit_sample(pixel, weight) for the samples of a cell. A sample reads the pixels `pixel` and, if
  // its weight is not zero, `pixel + 1`, with the weights 1 - weight and weight.
  template <typename Visit>
  C10_DEVICE void visit(int cell, int cells, Visit visit_sample) const {
    const T step = bin / T(count);
    for (int b = first_bin(cell, cells); b <= last_bin(cell, cells); ++b) {
      const T bin_start = start + T(b) * bin;
      int i = 0, end = count;
      if (count > kFew && step > 0) { // a box may be much larger than the map: start where it reaches it
        i = bound((T(-1) - bin_start) / step - T(2));
        end = bound((T(size) - bin_start) / step + T(2));
      }
      for (; i < end; ++i) {
        const T position = bin_start + (T(i) + T(0.5)) * bin / T(count);
        if (position < T(-1) || position > T(size)) {
          continue;
        }
        const T inside = position < 0 ? T(0) : position > T(size - 1) ? T(size - 1) : position;
        const int pixel = static_cast<int>(inside);
        visit_sample(pixel, inside - T(pixel));
      }
    }
  }

 private:
  static constexpr int kFew = 8;

  C10_DEVICE int bound(T index) const {
    return index < 0 ? 0 : index > T(count) ? count : static_cast<int>(index);
  }
};

} // namespace hybrid_cascade::pyramid_roi_align
