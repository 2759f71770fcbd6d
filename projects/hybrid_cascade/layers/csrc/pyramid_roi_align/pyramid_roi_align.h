// Pyramid RoIAlign: the interface between the operator and its kernels.
//
// Legend: N images, C channels, h x w maps (N, C, h, w), of which there may be any number; R RoIs; S maps
// that are summed for a RoI; H x W cells of the output. A map is pooled to bins, as many as its own output of
// roi_align has; a cell is the mean of the bins that it covers, as in adaptive average pooling.
#pragma once

#include <ATen/core/List.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace hybrid_cascade::pyramid_roi_align {

struct Settings {
  // For each map: the size of a pixel of the image in pixels of the map, the bins along each axis, the samples
  // of a bin along each axis (0: as many as it has pixels), and whether pixels have their centers at 0.5.
  at::ArrayRef<double> scales;
  at::IntArrayRef bin_rows, bin_columns, sampling_ratios;
  const c10::List<bool>& aligned;
  int64_t rows, columns; // H x W
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
