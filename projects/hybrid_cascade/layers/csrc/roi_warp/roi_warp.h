// RoI warp: what the CPU and the CUDA kernels share.
//
// Legend: N images, C channels, H x W feature map; K boxes; h x w samples a box, of which max pooling
// keeps one of each pool x pool window, the output's (h / pool) x (w / pool) cells.
//
// One axis of the operator, the other is alike: sample i lies at
//     position(i) = x1 * scale + (i + shift) / count * (x2 - x1) * scale - shift,
// shift = 0.5 if aligned, else 0, and reads the pixels u with |position - u| < 1 with the weight
// 1 - |position - u|. Pixels outside the map are zero.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Macros.h>

#include <cmath>
#include <cstdint>

namespace hybrid_cascade {

// The pixel of a sample that reaches no pixel of the map: outside, or not a number.
constexpr int kOutside = -2;

// A sample reads the pixels low and low + 1 (either may lie outside the map) with the weights
// 1 - weight and weight. At an exact pixel low is that pixel, hence the derivative there is that of the
// cell [low, low + 1): the one-sided choice at the kinks of the hat kernel.
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

  // Where in the box a sample lies: 0 at x1, 1 at x2. The derivative of its position by `extent`.
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

// Equal ends give their value exactly, so that flat regions tie in the max pooling.
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

struct Warp {
  int64_t images, channels, boxes;
  int height, width; // of the feature map
  int rows, columns; // samples of a box
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

// The sums over samples and channels of grad * (derivative by the position), plain and multiplied by
// fraction(), of both axes: what the four box gradients are made of.
enum BoxSum { kX, kXFraction, kY, kYFraction, kBoxSums };

// The kernels. `boxes` is contiguous and of the type that coordinates and sums are computed in (float64 for
// float64 features, else float32), `grad` and `argmax` are contiguous, `argmax` is empty without need.
using Forward = void(
    const Warp& warp,
    const at::Tensor& input,
    const at::Tensor& boxes,
    const at::Tensor& output,
    const at::Tensor& argmax);

// Fills `input_grad` (N, C, H, W), contiguous, and `sums` (K, kBoxSums) of the type of `boxes`, or leaves out
// the one that is undefined.
using Backward = void(
    const Warp& warp,
    const at::Tensor& grad,
    const at::Tensor& input,
    const at::Tensor& boxes,
    const at::Tensor& argmax,
    const at::Tensor& input_grad,
    const at::Tensor& sums);

Forward forward_cpu, forward_cuda;
Backward backward_cpu, backward_cuda;

} // namespace hybrid_cascade
