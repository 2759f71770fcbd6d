// Pyramid RoIAlign on the CPU. The legend is in pyramid_roi_align.h.
//
// Every pixel is read once for a row of cells and multiplied once: first along y, then along x. Maps are
// channels-last, so that inner loops run over the contiguous channels of a block.
#include "../channel_blocks.h"
#include "cpu_plan.h"

#include <ATen/Dispatch.h>

namespace hybrid_cascade::pyramid_roi_align {
namespace {

// A block of `channels` channels of a map: the pixel (y, x) lies at data + (y * width + x) * stride.
template <typename T>
struct MapBlock {
  T* data;
  int64_t width, stride;
  int channels;
};

// Adds to `cells` (H * W, kBlock). `row` has room for (pixels, kBlock): a row of cells, summed along y only.
// With `kFull` the block has all its channels, and the compiler knows how long the loops over them are.
template <bool kFull, typename T, typename Pixel>
INLINED void add_cells(
    const MapBlock<const Pixel>& map, const Plan<T>& plan, T* __restrict row, T* __restrict cells) {
  const int channels = kFull ? kBlock : map.channels;
  for (size_t cell_row = 0; cell_row + 1 < plan.y.begin.size(); ++cell_row) {
    for (size_t p = 0; p < plan.pixels.size(); ++p) {
      T sum[kBlock] = {};
      for (size_t j = plan.y.begin[cell_row]; j < plan.y.begin[cell_row + 1]; ++j) {
        const T weight = plan.y.weights[j].weight;
        const Pixel* pixel = map.data + (plan.y.weights[j].at * map.width + plan.pixels[p]) * map.stride;
        for (int c = 0; c < channels; ++c) {
          sum[c] += weight * static_cast<T>(pixel[c]);
        }
      }
      std::copy_n(sum, kBlock, row + p * kBlock);
    }
    for (size_t cell_column = 0; cell_column + 1 < plan.x.begin.size(); ++cell_column) {
      T sum[kBlock];
      std::copy_n(cells, kBlock, sum);
      for (size_t j = plan.x.begin[cell_column]; j < plan.x.begin[cell_column + 1]; ++j) {
        const T weight = plan.x.weights[j].weight;
        const T* pixel = row + plan.x.weights[j].at * kBlock;
        for (int c = 0; c < kBlock; ++c) {
          sum[c] += weight * pixel[c];
        }
      }
      std::copy_n(sum, kBlock, cells);
      cells += kBlock;
    }
  }
}

// The transpose of add_cells: adds to the map.
template <bool kFull, typename T>
INLINED void add_to_map(
    const MapBlock<T>& map, const Plan<T>& plan, T* __restrict row, const T* __restrict cells) {
  const int channels = kFull ? kBlock : map.channels;
  for (size_t cell_row = 0; cell_row + 1 < plan.y.begin.size(); ++cell_row) {
    std::fill_n(row, plan.pixels.size() * kBlock, T(0));
    for (size_t cell_column = 0; cell_column + 1 < plan.x.begin.size(); ++cell_column) {
      for (size_t j = plan.x.begin[cell_column]; j < plan.x.begin[cell_column + 1]; ++j) {
        const T weight = plan.x.weights[j].weight;
        T* pixel = row + plan.x.weights[j].at * kBlock;
        for (int c = 0; c < kBlock; ++c) {
          pixel[c] += weight * cells[c];
        }
      }
      cells += kBlock;
    }
    for (size_t j = plan.y.begin[cell_row]; j < plan.y.begin[cell_row + 1]; ++j) {
      const T weight = plan.y.weights[j].weight;
      for (size_t p = 0; p < plan.pixels.size(); ++p) {
        T* pixel = map.data + (plan.y.weights[j].at * map.width + plan.pixels[p]) * map.stride;
        const T* grad = row + p * kBlock;
        for (int c = 0; c < channels; ++c) {
          pixel[c] += weight * grad[c];
        }
      }
    }
  }
}

// target_clones does not apply to templates, hence one function for each type.
#define INSTANTIATE_FORWARD(T, Pixel)                                                                        \
  VECTORISED void run_forward(const MapBlock<const Pixel>& map, const Plan<T>& plan, T* row, T* cells) {     \
    map.channels == kBlock ? add_cells<true>(map, plan, row, cells)                                          \
                           : add_cells<false>(map, plan, row, cells);                                        \
  }
#define INSTANTIATE_BACKWARD(T)                                                                              \
  VECTORISED void run_backward(const MapBlock<T>& map, const Plan<T>& plan, T* row, const T* cells) {        \
    map.channels == kBlock ? add_to_map<true>(map, plan, row, cells)                                         \
                           : add_to_map<false>(map, plan, row, cells);                                       \
  }
INSTANTIATE_FORWARD(float, float)
INSTANTIATE_FORWARD(double, double)
INSTANTIATE_FORWARD(float, at::BFloat16)
INSTANTIATE_BACKWARD(float)
INSTANTIATE_BACKWARD(double)
#undef INSTANTIATE_FORWARD
#undef INSTANTIATE_BACKWARD

// Returns the block of channels of an image that starts at channel `first`.
template <typename T>
MapBlock<T> block_of(const at::Tensor& map, T* data, int64_t image, int64_t first) {
  const int64_t channels = map.size(1), area = map.size(2) * map.size(3);
  return {data + image * area * channels + first, map.size(3), channels, block_channels(channels, first)};
}

// The most that Plan::pixels can hold.
int64_t most_pixels(const Maps& maps) {
  int64_t most = 0;
  for (const at::Tensor& map : maps) {
    most = std::max(most, map.size(3));
  }
  return most;
}

// Sums are T, and the maps and the output Pixel.
template <typename T, typename Pixel = T>
void forward(const Settings& settings, const ForwardTensors& tensors) {
  const Maps& maps = tensors.maps;
  const auto plans = make_plans<T>(settings, maps, tensors.boxes, tensors.levels);
  Pixel* output = tensors.output.mutable_data_ptr<Pixel>();
  const int64_t channels = maps[0].size(1), cells = settings.rows * settings.columns;
  at::parallel_for(0, plans.size(), 1, [&](int64_t begin, int64_t end) {
    std::vector<T> row(most_pixels(maps) * kBlock), block(cells * kBlock);
    for (int64_t roi = begin; roi < end; ++roi) {
      for (int64_t first = 0; first < channels; first += kBlock) {
        std::fill(block.begin(), block.end(), T(0));
        for (const Plan<T>& plan : plans[roi]) {
          const at::Tensor& map = maps[plan.map];
          run_forward(
              block_of(map, map.const_data_ptr<Pixel>(), plan.image, first), plan, row.data(), block.data());
        }
        from_block(
            block.data(),
            cells,
            cells,
            block_channels(channels, first),
            output + (roi * channels + first) * cells);
      }
    }
  });
}

// Each task owns a block of channels of an image and visits its boxes in order. No two tasks write to the
// same place, and sums are always formed in the same order.
template <typename T>
void backward(const Settings& settings, const BackwardTensors& tensors) {
  const Maps& map_grads = tensors.map_grads;
  const auto plans = make_plans<T>(settings, map_grads, tensors.boxes, tensors.levels);
  const T* grad = tensors.grad.const_data_ptr<T>();
  const int64_t images = map_grads[0].size(0), channels = map_grads[0].size(1);
  const int64_t blocks = block_count(channels), cells = settings.rows * settings.columns;
  at::parallel_for(0, images * blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> row(most_pixels(map_grads) * kBlock), block(cells * kBlock);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % blocks * kBlock;
      for (size_t roi = 0; roi < plans.size(); ++roi) {
        if (plans[roi].empty() || plans[roi][0].image != task / blocks) {
          continue;
        }
        to_block(
            grad + (roi * channels + first) * cells,
            cells,
            cells,
            block_channels(channels, first),
            block.data());
        for (const Plan<T>& plan : plans[roi]) {
          const at::Tensor& map = map_grads[plan.map];
          run_backward(
              block_of(map, map.mutable_data_ptr<T>(), plan.image, first), plan, row.data(), block.data());
        }
      }
    }
  });
}

} // namespace

// Of bfloat16, pixels become float32 as they are read, and of float16 before.
void forward_cpu(const Settings& settings, const ForwardTensors& tensors) {
  if (tensors.output.scalar_type() == at::kBFloat16) {
    return forward<float, at::BFloat16>(settings, tensors);
  }
  const at::ScalarType type = tensors.boxes.scalar_type();
  if (tensors.output.scalar_type() != type) {
    ForwardTensors wide{{}, tensors.boxes, tensors.levels, tensors.output.to(type)};
    for (const at::Tensor& map : tensors.maps) {
      wide.maps.push_back(map.to(type));
    }
    forward_cpu(settings, wide);
    tensors.output.copy_(wide.output);
    return;
  }
  AT_DISPATCH_FLOATING_TYPES(tensors.boxes.scalar_type(), "pyramid_roi_align", [&] {
    forward<scalar_t>(settings, tensors);
  });
}

void backward_cpu(const Settings& settings, const BackwardTensors& tensors) {
  const at::ScalarType type = tensors.boxes.scalar_type();
  if (tensors.grad.scalar_type() != type) {
    return backward_cpu(settings, {tensors.grad.to(type), tensors.boxes, tensors.levels, tensors.map_grads});
  }
  AT_DISPATCH_FLOATING_TYPES(tensors.boxes.scalar_type(), "pyramid_roi_align_backward", [&] {
    backward<scalar_t>(settings, tensors);
  });
}

} // namespace hybrid_cascade::pyramid_roi_align
