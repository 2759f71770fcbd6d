// RoI warp: the geometry and the interface that the CPU and the CUDA kernels share.
//
// Legend: N images, C channels, h x w feature map, R RoIs, H x W samples of a RoI. Max pooling keeps one
// sample of each pool x pool window, which makes (H / pool) x (W / pool) output cells.
//
// Along one axis (both work alike), sample i lies at
//     position(i) = x1 * scale + (i + shift) / count * (x2 - x1) * scale - shift,
// where shift is 0.5 if aligned, else 0. It reads the pixels u with |position - u| < 1, with the weight
// 1 - |position - u|. Pixels outside the map are zero.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Macros.h>

#include <cmath>
#include <cstdint>

namespace hybrid_cascade::roi_warp {

// Stands for the pixel of a sample that reads no pixel of the map: it lies outside, or is not a number.
constexpr int kOutside = -2;

// A sample reads the pixels low and low + 1 (either may lie outside the map) with the weights
// 1 - weight and weight. If it lies exactly on a pixel, low is that pixel. The derivative there is
// therefore that of the cell [low, low + 1): at a kink of the hat kernel we take the right-hand one.
template <typename T>
struct Sample {
  int low;
  T weight;
};

template <typename T>
struct Axis {
  T corner; // x1, in the unit of the boxes
  T extent; // x2 - x1, in feature pixels
  T scale;
  T shift;
  int count; // samples
  int size; // of the map, in pixels

  // The place of a sample in the box: 0 at x1, 1 at x2. It is the derivative of its position by `extent`.
  C10_HOST_DEVICE T fraction(int index) const {
    return (index + shift) / count;
  }

  // Compilers may or may not round between a product and a sum. The explicit fma, and a division between
  // the other product and its sum, leave them no choice: positions have the same bits on CPU and CUDA.
  // Multiplying before dividing keeps positions that are whole numbers exact.
  C10_HOST_DEVICE Sample<T> sample(int index) const {
    const T position = std::fma(corner, scale, (index + shift) * extent / count - shift);
    if (!(position >= -1 && position < size)) { // written so that NaN is outside
      return {kOutside, T(0)};
    }
    const T low = std::floor(position);
    return {static_cast<int>(low), position - low};
  }
};

// Gives exactly the value of the ends where they are equal, so that flat regions tie in the max pooling.
template <typename T>
C10_HOST_DEVICE C10_ALWAYS_INLINE T interpolate(T low, T high, T weight) {
  return low + weight * (high - low);
}

// Whether a candidate replaces the best sample so far: the first of equal ones stays, as in max_pool2d,
// and NaN wins.
template <typename T>
C10_HOST_DEVICE C10_ALWAYS_INLINE bool replaces(T candidate, T best) {
  return (candidate > best) | (candidate != candidate); // without a branch, for vectors
}

// The sizes and settings of one call.
struct Warp {
  int64_t images, channels, rois;
  int height, width; // h x w, of the feature map
  int rows, columns; // H x W, samples of a RoI
  int pool;
  double scale;
  bool aligned;

  C10_HOST_DEVICE int output_rows() const {
    return rows / pool;
  }
  C10_HOST_DEVICE int output_columns() const {
    return columns / pool;
  }

  // `box` is a row of the boxes: image index, x1, y1, x2, y2.
  template <typename T>
  C10_HOST_DEVICE Axis<T> x_axis(const T* box) const {
    return axis(box[1], box[3], columns, width);
  }
  template <typename T>
  C10_HOST_DEVICE Axis<T> y_axis(const T* box) const {
    return axis(box[2], box[4], rows, height);
  }
  template <typename T>
  C10_HOST_DEVICE bool has_image(T index) const {
    return index >= 0 && index < images; // false for NaN
  }

 private:
  template <typename T>
  C10_HOST_DEVICE Axis<T> axis(T low, T high, int count, int size) const {
    const T factor = static_cast<T>(scale);
    return {low, (high - low) * factor, factor, aligned ? T(0.5) : T(0), count, size};
  }
};

// The four sums that the gradient of a box is made of. Each runs over the samples and channels of the box
// and adds up grad * (derivative by the position along x or y), plain or multiplied by fraction().
enum BoxSum { kX, kXFraction, kY, kYFraction, kBoxSums };

// In both passes, `boxes` (R, 5) is contiguous and has the type in which coordinates and sums are computed:
// float64 for float64 features, else float32.
struct ForwardTensors {
  at::Tensor input; // (N, C, h, w), of any strides
  at::Tensor boxes;
  at::Tensor output; // (R, C, H / pool, W / pool), contiguous, to be filled
  at::Tensor argmax; // as the output, to be filled, or empty: not wanted
};

struct BackwardTensors {
  at::Tensor grad; // of the output, contiguous
  at::Tensor input;
  at::Tensor boxes;
  at::Tensor argmax; // of the forward pass, contiguous; empty without max pooling
  at::Tensor input_grad; // (N, C, h, w), to be filled, or undefined: not wanted. Contiguous; on CUDA,
                         // channels last if the input is
  at::Tensor sums; // (R, kBoxSums) of the type of `boxes`, to be filled, or undefined: not wanted
};

using Forward = void(const Warp& warp, const ForwardTensors& tensors);
using Backward = void(const Warp& warp, const BackwardTensors& tensors);

Forward forward_cpu, forward_cuda;
Backward backward_cpu, backward_cuda;

} // namespace hybrid_cascade::roi_warp
