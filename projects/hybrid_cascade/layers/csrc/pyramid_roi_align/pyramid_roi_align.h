// Pyramid RoIAlign: the interface between the operator and its kernels.
//
// Legend: N images, C channels, h x w maps (N, C, h, w), of which there may be any number; R RoIs; S maps
// that are summed for a RoI; H x W cells of the output.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace hybrid_cascade::pyramid_roi_align {

struct Settings {
  at::ArrayRef<double> scales; // for each map: the size of a pixel of the image in pixels of the map
  at::IntArrayRef bins; // for each map: a cell is the mean of this many bins of roi_align along each axis
  int64_t rows, columns; // H x W
  int64_t sampling_ratio;
  bool aligned;
};

using Maps = std::vector<at::Tensor>; // channels-last

struct ForwardTensors {
  Maps maps;
  at::Tensor boxes, levels; // (R, 5) and (R, S), contiguous
  at::Tensor output; // (R, C, H, W), contiguous, to be filled
};

struct BackwardTensors {
  at::Tensor grad; // of the output, contiguous
  at::Tensor boxes, levels; // (R, 5) and (R, S), contiguous
  Maps map_grads; // zeros, to be added to
};

void forward_cpu(const Settings& settings, const ForwardTensors& tensors);
void backward_cpu(const Settings& settings, const BackwardTensors& tensors);

} // namespace hybrid_cascade::pyramid_roi_align
