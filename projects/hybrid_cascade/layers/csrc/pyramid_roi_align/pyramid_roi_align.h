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

// In all maps of a call, at most. They are listed in the arguments of a CUDA kernel.
constexpr size_t kMostMaps = 32;

struct Settings {
  // For each map: the size of a pixel of the image in pixels of the map, the bins along each axis, the
  // samples of a bin along each axis (0: as many as it has pixels), and whether pixels have their centers at
  // 0.5.
  at::ArrayRef<double> scales;
  at::IntArrayRef bin_rows, bin_columns, sampling_ratios;
  const c10::List<bool>& aligned;
  int64_t rows, columns; // H x W
};

using Maps = std::vector<at::Tensor>; // channels-last

// Boxes and sums have the type float64 for float64 maps, else float32.
struct ForwardTensors {
  Maps maps;
  at::Tensor boxes, levels; // (R, 5) and (R, S), contiguous
  at::Tensor output; // (R, C, H, W), contiguous, of the type of the maps, to be filled
};

struct BackwardTensors {
  at::Tensor grad; // of the output, contiguous
  at::Tensor boxes, levels; // (R, 5) and (R, S), contiguous
  Maps map_grads; // zeros, of the type of the boxes, to be added to
};

using Forward = void(const Settings& settings, const ForwardTensors& tensors);
using Backward = void(const Settings& settings, const BackwardTensors& tensors);

Forward forward_cpu, forward_cuda;
Backward backward_cpu, backward_cuda;

} // namespace hybrid_cascade::pyramid_roi_align
