// RoIAlign of several feature maps, summed, on the CPU: the operator's schema, its checks and its kernels.
//
// Legend: N images, C channels, maps (N, C, H, W) of any number and sizes; K boxes; T terms, the maps that
// are summed for a box; h x w cells of the output.
//
// The samples are those of torchvision's roi_align. Its sum over the samples of a cell is a product of sums
// along y and along x, because sampling is: the weights of all samples of a cell along one axis are added up
// first, then every pixel is read once for a row of cells and multiplied once. Maps are channels-last, so that
// inner loops run over the contiguous channels of a block.
#include "../channel_blocks.h"

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zero.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

namespace hybrid_cascade {
namespace {

constexpr int64_t kMostSamples = 1 << 20; // of a bin along an axis

struct Settings {
  int64_t rows, columns; // h, w
  int64_t sampling_ratio;
  bool aligned;
};

template <typename T>
struct Weight {
  int64_t at; // of a pixel: its row, or its index in Box::pixels
  T weight;
};

// Along one axis, the pixels that each cell reads: those of cell i are [begin[i], begin[i + 1]).
template <typename T>
struct Axis {
  std::vector<Weight<T>> weights;
  std::vector<size_t> begin{0};

  // A cell is the mean of `bins` bins of roi_align.
  Axis(T low, T high, double scale, int64_t cells, int64_t bins, int64_t size, const Settings& settings) {
    const T offset = settings.aligned ? T(0.5) : T(0);
    const T start = low * T(scale) - offset;
    T length = high * T(scale) - offset - start;
    if (!settings.aligned) {
      length = std::max(length, T(1));
    }
    const T bin = length / T(cells * bins);
    const T wanted = settings.sampling_ratio > 0 ? T(settings.sampling_ratio) : std::ceil(bin);
    // An aligned box without length has no samples if their number depends on it. Neither have, unlike in
    // roi_align, one that is reversed then, and boxes that are not numbers or absurdly large.
    const bool is_usable = std::isfinite(start) && std::isfinite(length) && wanted <= kMostSamples;
    const int64_t samples = is_usable && wanted >= 1 ? wanted : 0;
    std::vector<T> dense(size, T(0)); // the weights of the pixels of a cell
    for (int64_t cell = 0; cell < cells; ++cell) {
      int64_t first = size, last = -1;
      for (int64_t i = 0; i < bins * samples; ++i) {
        const T position =
            start + T(cell * bins + i / samples) * bin + (T(i % samples) + T(0.5)) * bin / T(samples);
        if (position < T(-1) || position > T(size)) {
          continue;
        }
        const T inside = std::min(std::max(position, T(0)), T(size - 1));
        const int64_t pixel = inside;
        const T weight = inside - T(pixel);
        dense[pixel] += (T(1) - weight) / T(bins * samples);
        if (weight > 0) {
          dense[pixel + 1] += weight / T(bins * samples);
        }
        first = std::min(first, pixel);
        last = std::max(last, pixel + (weight > 0));
      }
      for (int64_t pixel = first; pixel <= last; ++pixel) {
        if (dense[pixel] != 0) {
          weights.push_back({pixel, dense[pixel]});
          dense[pixel] = 0;
        }
      }
      begin.push_back(weights.size());
    }
  }
};

// What a box reads of one map.
template <typename T>
struct Box {
  int64_t map; // its index
  int64_t image;
  Axis<T> y, x;
  std::vector<int64_t> pixels; // the columns that are read, ascending

  Box(int64_t map, int64_t image, Axis<T> y_axis, Axis<T> x_axis)
      : map(map), image(image), y(std::move(y_axis)), x(std::move(x_axis)) {
    for (const Weight<T>& weight : x.weights) {
      pixels.push_back(weight.at);
    }
    std::sort(pixels.begin(), pixels.end());
    pixels.erase(std::unique(pixels.begin(), pixels.end()), pixels.end());
    for (Weight<T>& weight : x.weights) {
      weight.at = std::lower_bound(pixels.begin(), pixels.end(), weight.at) - pixels.begin();
    }
  }
};

// What a box reads; `box` and `levels` are its rows of the boxes (K, 5) and of the levels (K, T).
template <typename T>
std::vector<Box<T>> describe(
    const std::vector<at::Tensor>& maps,
    const T* box,
    const int64_t* levels,
    int64_t terms,
    at::ArrayRef<double> scales,
    at::IntArrayRef bins,
    const Settings& settings) {
  std::vector<Box<T>> described;
  for (int64_t term = 0; term < terms; ++term) {
    const int64_t level = levels[term];
    if (level < 0 || level >= static_cast<int64_t>(maps.size())) {
      continue;
    }
    const at::Tensor& map = maps[level];
    described.emplace_back(
        level,
        static_cast<int64_t>(box[0]),
        Axis<T>(box[2], box[4], scales[level], settings.rows, bins[level], map.size(2), settings),
        Axis<T>(box[1], box[3], scales[level], settings.columns, bins[level], map.size(3), settings));
  }
  return described;
}

// A block of `channels` channels of a map: the pixel (y, x) lies at data + (y * width + x) * stride.
template <typename T>
struct MapBlock {
  T* data;
  int64_t width, stride;
  int channels;
};

// Adds to `cells`, (h * w, kBlock). `row`, (pixels, kBlock), is for a row of cells, summed along y only. With
// `kFull` all channels of the block exist, and loops over them have a length that the compiler knows.
template <bool kFull, typename T>
INLINED void add_cells(const MapBlock<const T>& map, const Box<T>& box, T* __restrict row, T* __restrict cells) {
  const int channels = kFull ? kBlock : map.channels;
  for (size_t i = 0; i + 1 < box.y.begin.size(); ++i) {
    for (size_t p = 0; p < box.pixels.size(); ++p) {
      T sum[kBlock] = {};
      for (size_t j = box.y.begin[i]; j < box.y.begin[i + 1]; ++j) {
        const T weight = box.y.weights[j].weight;
        const T* pixel = map.data + (box.y.weights[j].at * map.width + box.pixels[p]) * map.stride;
        for (int c = 0; c < channels; ++c) {
          sum[c] += weight * pixel[c];
        }
      }
      std::copy_n(sum, kBlock, row + p * kBlock);
    }
    for (size_t k = 0; k + 1 < box.x.begin.size(); ++k) {
      T sum[kBlock];
      std::copy_n(cells, kBlock, sum);
      for (size_t j = box.x.begin[k]; j < box.x.begin[k + 1]; ++j) {
        const T weight = box.x.weights[j].weight;
        const T* pixel = row + box.x.weights[j].at * kBlock;
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
INLINED void add_to_map(const MapBlock<T>& map, const Box<T>& box, T* __restrict row, const T* __restrict cells) {
  const int channels = kFull ? kBlock : map.channels;
  for (size_t i = 0; i + 1 < box.y.begin.size(); ++i) {
    std::fill_n(row, box.pixels.size() * kBlock, T(0));
    for (size_t k = 0; k + 1 < box.x.begin.size(); ++k) {
      for (size_t j = box.x.begin[k]; j < box.x.begin[k + 1]; ++j) {
        const T weight = box.x.weights[j].weight;
        T* pixel = row + box.x.weights[j].at * kBlock;
        for (int c = 0; c < kBlock; ++c) {
          pixel[c] += weight * cells[c];
        }
      }
      cells += kBlock;
    }
    for (size_t j = box.y.begin[i]; j < box.y.begin[i + 1]; ++j) {
      const T weight = box.y.weights[j].weight;
      for (size_t p = 0; p < box.pixels.size(); ++p) {
        T* pixel = map.data + (box.y.weights[j].at * map.width + box.pixels[p]) * map.stride;
        const T* grad = row + p * kBlock;
        for (int c = 0; c < channels; ++c) {
          pixel[c] += weight * grad[c];
        }
      }
    }
  }
}

// target_clones does not apply to templates, hence one function for each type.
#define INSTANTIATE(T)                                                                               \
  VECTORISED void run_forward(const MapBlock<const T>& map, const Box<T>& box, T* row, T* cells) {   \
    map.channels == kBlock ? add_cells<true>(map, box, row, cells) : add_cells<false>(map, box, row, cells); \
  }                                                                                                  \
  VECTORISED void run_backward(const MapBlock<T>& map, const Box<T>& box, T* row, const T* cells) {  \
    map.channels == kBlock ? add_to_map<true>(map, box, row, cells) : add_to_map<false>(map, box, row, cells); \
  }                                                                                                  \
  VECTORISED void unpack(const T* grad, int64_t cells, int channels, T* block) {                     \
    to_block(grad, cells, channels, block);                                                          \
  }
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

// A block of channels of the image that the box lies in.
template <typename T>
MapBlock<T> block_of(const at::Tensor& map, T* data, int64_t image, int64_t first) {
  const int64_t channels = map.size(1), area = map.size(2) * map.size(3);
  return {
      data + image * area * channels + first,
      map.size(3),
      channels,
      static_cast<int>(std::min<int64_t>(kBlock, channels - first))};
}

int64_t most_pixels(const std::vector<at::Tensor>& maps) {
  int64_t most = 0;
  for (const at::Tensor& map : maps) {
    most = std::max(most, map.size(3));
  }
  return most;
}

void check(
    const std::vector<at::Tensor>& maps,
    const at::Tensor& boxes,
    const at::Tensor& levels,
    at::ArrayRef<double> scales,
    at::IntArrayRef bins,
    const Settings& settings) {
  TORCH_CHECK(
      !maps.empty() && maps.size() == scales.size() && maps.size() == bins.size(),
      "pyramid_roi_align: ", maps.size(), " maps, ", scales.size(), " scales and ", bins.size(), " bins");
  for (const at::Tensor& map : maps) {
    TORCH_CHECK(
        map.dim() == 4 && map.size(0) == maps[0].size(0) && map.size(1) == maps[0].size(1) &&
            map.scalar_type() == boxes.scalar_type() && map.numel() > 0,
        "pyramid_roi_align: maps must be (N, C, H, W), not empty, with the same N and C and the type of the "
        "boxes, got ",
        map.sizes(), " of ", map.scalar_type());
  }
  TORCH_CHECK(
      boxes.dim() == 2 && boxes.size(1) == 5, "pyramid_roi_align: boxes must be (K, 5), got ", boxes.sizes());
  TORCH_CHECK(
      levels.dim() == 2 && levels.size(0) == boxes.size(0) && levels.scalar_type() == at::kLong,
      "pyramid_roi_align: levels must be int64 (K, T), got ", levels.sizes(), " for ", boxes.sizes());
  TORCH_CHECK(
      settings.rows > 0 && settings.columns > 0, "pyramid_roi_align: output_size must be positive");
  for (const int64_t count : bins) {
    TORCH_CHECK(count > 0, "pyramid_roi_align: bins must be positive");
  }
}

// What each box reads, (K); `boxes` and `levels` are contiguous.
template <typename T>
std::vector<std::vector<Box<T>>> describe_all(
    const std::vector<at::Tensor>& maps,
    const at::Tensor& boxes,
    const at::Tensor& levels,
    at::ArrayRef<double> scales,
    at::IntArrayRef bins,
    const Settings& settings) {
  const T* data = boxes.const_data_ptr<T>();
  const int64_t images = maps[0].size(0), terms = levels.size(1);
  for (int64_t k = 0; k < boxes.size(0); ++k) {
    TORCH_CHECK_INDEX(
        data[5 * k] >= 0 && data[5 * k] < images,
        "pyramid_roi_align: box ", k, " has image index ", data[5 * k], ", the maps have ", images, " images");
  }
  std::vector<std::vector<Box<T>>> described(boxes.size(0));
  at::parallel_for(0, boxes.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      described[k] = describe(
          maps, data + 5 * k, levels.const_data_ptr<int64_t>() + terms * k, terms, scales, bins, settings);
    }
  });
  return described;
}

at::Tensor pyramid_roi_align(
    at::TensorList given_maps,
    const at::Tensor& boxes_any,
    const at::Tensor& levels_any,
    at::ArrayRef<double> scales,
    at::IntArrayRef bins,
    int64_t rows,
    int64_t columns,
    int64_t sampling_ratio,
    bool aligned) {
  const Settings settings{rows, columns, sampling_ratio, aligned};
  check(given_maps.vec(), boxes_any, levels_any, scales, bins, settings);
  const at::Tensor boxes = boxes_any.contiguous(), levels = levels_any.contiguous();
  std::vector<at::Tensor> maps;
  for (const at::Tensor& map : given_maps) {
    maps.push_back(map.contiguous(at::MemoryFormat::ChannelsLast));
  }
  const int64_t channels = maps[0].size(1), cells = rows * columns;
  const at::Tensor output = at::empty({boxes.size(0), channels, rows, columns}, maps[0].options());
  AT_DISPATCH_FLOATING_TYPES(boxes.scalar_type(), "pyramid_roi_align", [&] {
    const auto described = describe_all<scalar_t>(maps, boxes, levels, scales, bins, settings);
    at::parallel_for(0, boxes.size(0), 1, [&](int64_t begin, int64_t end) {
      std::vector<scalar_t> row(most_pixels(maps) * kBlock), block(cells * kBlock);
      for (int64_t k = begin; k < end; ++k) {
        for (int64_t first = 0; first < channels; first += kBlock) {
          std::fill(block.begin(), block.end(), scalar_t(0));
          for (const auto& box : described[k]) {
            const at::Tensor& map = maps[box.map];
            run_forward(
                block_of(map, map.const_data_ptr<scalar_t>(), box.image, first), box, row.data(), block.data());
          }
          from_block(
              block.data(),
              cells,
              std::min<int64_t>(kBlock, channels - first),
              output.mutable_data_ptr<scalar_t>() + (k * channels + first) * cells);
        }
      }
    });
  });
  return output;
}

// Every task owns a block of channels of an image and takes its boxes in order: no two write to the same
// place, and sums are always formed in the same order.
std::vector<at::Tensor> pyramid_roi_align_backward(
    const at::Tensor& grad_any,
    const at::Tensor& boxes_any,
    const at::Tensor& levels_any,
    int64_t images,
    at::IntArrayRef heights,
    at::IntArrayRef widths,
    at::ArrayRef<double> scales,
    at::IntArrayRef bins,
    int64_t sampling_ratio,
    bool aligned) {
  TORCH_CHECK(
      grad_any.dim() == 4 && grad_any.size(0) == boxes_any.size(0) && heights.size() == widths.size(),
      "pyramid_roi_align_backward: grad of ", grad_any.sizes(), " for ", boxes_any.size(0), " boxes, ",
      heights.size(), " heights and ", widths.size(), " widths");
  const Settings settings{grad_any.size(2), grad_any.size(3), sampling_ratio, aligned};
  const int64_t channels = grad_any.size(1);
  std::vector<at::Tensor> grads;
  for (size_t i = 0; i < heights.size(); ++i) {
    grads.push_back(
        at::empty({images, channels, heights[i], widths[i]}, grad_any.options(), at::MemoryFormat::ChannelsLast)
            .zero_());
  }
  check(grads, boxes_any, levels_any, scales, bins, settings);
  const at::Tensor boxes = boxes_any.contiguous(), levels = levels_any.contiguous();
  const at::Tensor grad = grad_any.contiguous();
  const int64_t cells = settings.rows * settings.columns;
  const int64_t blocks = (channels + kBlock - 1) / kBlock;
  AT_DISPATCH_FLOATING_TYPES(boxes.scalar_type(), "pyramid_roi_align_backward", [&] {
    const auto described = describe_all<scalar_t>(grads, boxes, levels, scales, bins, settings);
    at::parallel_for(0, images * blocks, 1, [&](int64_t begin, int64_t end) {
      std::vector<scalar_t> row(most_pixels(grads) * kBlock), block(cells * kBlock);
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = task % blocks * kBlock;
        for (int64_t k = 0; k < boxes.size(0); ++k) {
          if (described[k].empty() || described[k][0].image != task / blocks) {
            continue;
          }
          unpack(
              grad.const_data_ptr<scalar_t>() + (k * channels + first) * cells,
              cells,
              std::min<int64_t>(kBlock, channels - first),
              block.data());
          for (const auto& box : described[k]) {
            const at::Tensor& map = grads[box.map];
            run_backward(
                block_of(map, map.mutable_data_ptr<scalar_t>(), box.image, first), box, row.data(), block.data());
          }
        }
      }
    });
  });
  return grads;
}

} // namespace
} // namespace hybrid_cascade

TORCH_LIBRARY_FRAGMENT(hybrid_cascade, library) {
  library.def(
      "pyramid_roi_align(Tensor[] maps, Tensor boxes, Tensor levels, float[] scales, int[] bins, int rows, "
      "int columns, int sampling_ratio, bool aligned) -> Tensor");
  library.def(
      "pyramid_roi_align_backward(Tensor grad, Tensor boxes, Tensor levels, SymInt images, SymInt[] heights, "
      "SymInt[] widths, float[] scales, int[] bins, int sampling_ratio, bool aligned) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(hybrid_cascade, CPU, library) {
  library.impl("pyramid_roi_align", hybrid_cascade::pyramid_roi_align);
  library.impl("pyramid_roi_align_backward", hybrid_cascade::pyramid_roi_align_backward);
}
