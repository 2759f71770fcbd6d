// RoI warp on the CPU. The legend is in roi_warp.h.
//
// Features are first packed into blocks of kBlock channels, (N, blocks, H + margin, W + margin, kBlock),
// so that every inner loop runs over the contiguous channels of a block, whatever the strides and the
// type of the input, and so that a block of a map stays in the cache while all boxes read it. The kernel
// is separable: a row of samples is interpolated along y once, only in the columns that the box reads,
// and then along x.
#include "../channel_blocks.h"
#include "roi_warp.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

namespace hybrid_cascade {
namespace {

// Packed maps have zeros around: two rows and columns before, which a sample outside the map reads, of
// which the second is also the neighbour of pixel 0, and one after.
constexpr int kBefore = 2;
constexpr int kMargin = kBefore + 1;
static_assert(kOutside == -kBefore, "the pixel of samples outside the map is the first of the margin");

template <typename T>
using Index = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>; // as wide as T, for vectors

int64_t block_count(const Warp& warp) {
  return (warp.channels + kBlock - 1) / kBlock;
}

// Of a block of a packed map.
int64_t row_size(const Warp& warp) {
  return (int64_t(warp.width) + kMargin) * kBlock;
}
int64_t map_size(const Warp& warp) {
  return (int64_t(warp.height) + kMargin) * row_size(warp);
}

// The most that Plan::pixels can hold.
int64_t most_pixels(const Warp& warp) {
  return 2 * int64_t(warp.columns) + 2;
}

// Where a box samples the map, in coordinates of the packed map.
template <typename T>
struct Plan {
  int64_t image;
  std::vector<Sample<T>> rows; // low is a row of the packed map
  std::vector<T> row_fractions;
  std::vector<Sample<T>> columns; // low is an index into `pixels`
  std::vector<T> column_fractions;
  std::vector<int> pixels; // the columns of the packed map that are read, ascending

  Plan(const Warp& warp, const T* box) : image(static_cast<int64_t>(box[0])) {
    const Axis<T> y = warp.y_axis(box);
    for (int i = 0; i < warp.rows; ++i) {
      const Sample<T> sample = y.sample(i);
      rows.push_back({sample.low + kBefore, sample.weight});
      row_fractions.push_back(y.fraction(i));
    }
    const Axis<T> x = warp.x_axis(box);
    columns.resize(warp.columns);
    column_fractions.resize(warp.columns);
    pixels = {0, 1}; // zeros, for the samples outside
    for (int i = 0; i < warp.columns; ++i) {
      const int at = x.extent < 0 ? warp.columns - 1 - i : i; // from left to right
      const Sample<T> sample = x.sample(at);
      column_fractions[at] = x.fraction(at);
      if (sample.low == kOutside) {
        columns[at] = {0, sample.weight};
        continue;
      }
      const int low = sample.low + kBefore;
      for (const int pixel : {low, low + 1}) {
        if (pixels.back() < pixel) {
          pixels.push_back(pixel);
        }
      }
      columns[at] = {static_cast<int>(pixels.size()) - 2, sample.weight};
    }
  }

  bool reads(const Sample<T>& sample) const {
    return sample.low != 0; // holds for rows and for columns
  }
};

template <typename T>
std::vector<Plan<T>> make_plans(const Warp& warp, const at::Tensor& boxes) {
  const T* data = boxes.const_data_ptr<T>();
  std::vector<Plan<T>> plans;
  plans.reserve(warp.boxes);
  for (int64_t k = 0; k < warp.boxes; ++k) {
    TORCH_CHECK_INDEX(
        warp.has_image(data[5 * k]),
        "roi_warp: box ", k, " has image index ", data[5 * k], ", the input has ", warp.images,
        " images");
    plans.emplace_back(warp, data + 5 * k);
  }
  return plans;
}

template <typename scalar_t, typename T>
at::Tensor pack(const Warp& warp, const at::Tensor& input) {
  const int64_t blocks = block_count(warp);
  const at::Tensor packed = at::zeros(
      {warp.images, blocks, int64_t(warp.height) + kMargin, int64_t(warp.width) + kMargin, kBlock},
      input.options().dtype(c10::CppTypeToScalarType<T>::value));
  const scalar_t* from = input.const_data_ptr<scalar_t>();
  T* to = packed.mutable_data_ptr<T>();
  const int64_t row_size = (int64_t(warp.width) + kMargin) * kBlock;
  const auto strides = input.strides();
  at::parallel_for(0, warp.images * blocks * warp.height, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t y = task % warp.height;
      const int64_t map = task / warp.height;
      const int64_t first = map % blocks * kBlock;
      const int channels = std::min<int64_t>(kBlock, warp.channels - first);
      const scalar_t* source = from + map / blocks * strides[0] + first * strides[1] + y * strides[2];
      T* row = to + (map * (warp.height + kMargin) + y + kBefore) * row_size + kBefore * kBlock;
      for (int c = 0; c < channels; ++c) {
        for (int64_t x = 0; x < warp.width; ++x) {
          row[x * kBlock + c] = static_cast<T>(source[c * strides[1] + x * strides[3]]);
        }
      }
    }
  });
  return packed;
}

template <typename scalar_t, typename T>
void unpack(const Warp& warp, const at::Tensor& packed, const at::Tensor& output) {
  const int64_t blocks = block_count(warp);
  const T* from = packed.const_data_ptr<T>();
  scalar_t* to = output.mutable_data_ptr<scalar_t>();
  const int64_t row_size = (int64_t(warp.width) + kMargin) * kBlock;
  at::parallel_for(0, warp.images * warp.channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t channel = plane % warp.channels;
      const int64_t map = plane / warp.channels * blocks + channel / kBlock;
      for (int64_t y = 0; y < warp.height; ++y) {
        const T* row = from + (map * (warp.height + kMargin) + y + kBefore) * row_size +
            kBefore * kBlock + channel % kBlock;
        scalar_t* target = to + (plane * warp.height + y) * warp.width;
        for (int64_t x = 0; x < warp.width; ++x) {
          target[x] = static_cast<scalar_t>(row[x * kBlock]);
        }
      }
    }
  });
}

// One row of samples, interpolated along y, in the columns that the box reads: (pixels, kBlock).
template <typename T>
INLINED void interpolate_row(
    const T* __restrict map, int64_t row_size, const Plan<T>& plan, const Sample<T>& sample, T* __restrict row) {
  const T* top = map + sample.low * row_size;
  const T weight = sample.weight;
  for (const int pixel : plan.pixels) {
    const T* high = top + int64_t(pixel) * kBlock;
    for (int c = 0; c < kBlock; ++c) {
      row[c] = interpolate(high[c], high[row_size + c], weight);
    }
    row += kBlock;
  }
}

// Forward of one box in one block of channels. `row` has room for `pool` rows of samples.
template <bool keep_argmax, typename T>
INLINED void warp_block(
    const Warp& warp, const T* map, const Plan<T>& plan, T* row, T* __restrict cells, Index<T>* __restrict argmax) {
  const int64_t map_row = (int64_t(warp.width) + kMargin) * kBlock;
  const int64_t row_size = plan.pixels.size() * kBlock;
  for (int y = 0; y < warp.rows; y += warp.pool) {
    for (int dy = 0; dy < warp.pool; ++dy) {
      interpolate_row(map, map_row, plan, plan.rows[y + dy], row + dy * row_size);
    }
    for (int x = 0; x < warp.columns; x += warp.pool) {
      T best[kBlock];
      std::fill_n(best, kBlock, -std::numeric_limits<T>::infinity());
      Index<T> best_index[kBlock] = {};
      for (int dy = 0; dy < warp.pool; ++dy) {
        for (int dx = 0; dx < warp.pool; ++dx) {
          const Sample<T> sample = plan.columns[x + dx];
          const T* left = row + dy * row_size + int64_t(sample.low) * kBlock;
          const Index<T> index = dy * warp.pool + dx;
          for (int c = 0; c < kBlock; ++c) {
            const T value = interpolate(left[c], left[c + kBlock], sample.weight);
            if (keep_argmax) {
              best_index[c] = replaces(value, best[c]) ? index : best_index[c];
            }
            best[c] = replaces(value, best[c]) ? value : best[c];
          }
        }
      }
      std::copy_n(best, kBlock, cells);
      cells += kBlock;
      if (keep_argmax) {
        std::copy_n(best_index, kBlock, argmax);
        argmax += kBlock;
      }
    }
  }
}

// Backward of one box in one block of channels. `argmax` is null without max pooling. `map` is null where
// no box gradient is asked for, `map_grad` where no gradient of the features is. Lane c of the box sums
// is added to sums[kBlock * (a BoxSum) + c].
template <typename T>
INLINED void warp_block_backward(
    const Warp& warp,
    const T* __restrict cells,
    const Index<T>* __restrict argmax,
    const T* __restrict map,
    const Plan<T>& plan,
    T* __restrict row,
    T* __restrict row_grad,
    T* __restrict map_grad,
    T* __restrict sums) {
  const int64_t map_row = (int64_t(warp.width) + kMargin) * kBlock;
  for (int y = 0; y < warp.rows; ++y) {
    const Sample<T> y_sample = plan.rows[y];
    if (!plan.reads(y_sample)) {
      continue;
    }
    if (map) {
      interpolate_row(map, map_row, plan, y_sample, row);
    }
    std::fill_n(row_grad, plan.pixels.size() * kBlock, T(0));
    for (int x = 0; x < warp.columns; ++x) {
      const Sample<T> sample = plan.columns[x];
      if (!plan.reads(sample)) {
        continue;
      }
      const int64_t cell = int64_t(y / warp.pool) * warp.output_columns() + x / warp.pool;
      T grad[kBlock];
      std::copy_n(cells + cell * kBlock, kBlock, grad);
      if (argmax) {
        const Index<T> index = y % warp.pool * warp.pool + x % warp.pool;
        for (int c = 0; c < kBlock; ++c) {
          grad[c] = argmax[cell * kBlock + c] == index ? grad[c] : T(0);
        }
      }
      const int64_t left = int64_t(sample.low) * kBlock;
      for (int c = 0; c < kBlock; ++c) {
        const T right_grad = sample.weight * grad[c];
        row_grad[left + c] += grad[c] - right_grad;
        row_grad[left + kBlock + c] += right_grad;
      }
      if (map) {
        const T fraction = plan.column_fractions[x];
        for (int c = 0; c < kBlock; ++c) {
          const T term = grad[c] * (row[left + kBlock + c] - row[left + c]);
          sums[kX * kBlock + c] += term;
          sums[kXFraction * kBlock + c] += fraction * term;
        }
      }
    }
    T y_sums[kBlock] = {};
    for (size_t i = 0; i < plan.pixels.size(); ++i) {
      const int64_t top = y_sample.low * map_row + int64_t(plan.pixels[i]) * kBlock;
      const T* grad = row_grad + i * kBlock;
      if (map_grad) {
        for (int c = 0; c < kBlock; ++c) {
          const T bottom_grad = y_sample.weight * grad[c];
          map_grad[top + c] += grad[c] - bottom_grad;
          map_grad[top + map_row + c] += bottom_grad;
        }
      }
      if (map) {
        for (int c = 0; c < kBlock; ++c) {
          y_sums[c] += grad[c] * (map[top + map_row + c] - map[top + c]);
        }
      }
    }
    const T fraction = plan.row_fractions[y];
    for (int c = 0; c < kBlock; ++c) {
      sums[kY * kBlock + c] += y_sums[c];
      sums[kYFraction * kBlock + c] += fraction * y_sums[c];
    }
  }
}

// target_clones does not apply to templates, hence one function for each type.
#define INSTANTIATE(T)                                                                                  \
  VECTORISED void run_forward(                                                                          \
      const Warp& warp, const T* map, const Plan<T>& plan, T* row, T* cells, Index<T>* argmax) {        \
    argmax ? warp_block<true>(warp, map, plan, row, cells, argmax)                                      \
           : warp_block<false>(warp, map, plan, row, cells, argmax);                                    \
  }                                                                                                     \
  VECTORISED void run_backward(                                                                         \
      const Warp& warp, const T* cells, const Index<T>* argmax, const T* map, const Plan<T>& plan, T* row, \
      T* row_grad, T* map_grad, T* sums) {                                                              \
    warp_block_backward<T>(warp, cells, argmax, map, plan, row, row_grad, map_grad, sums);              \
  }
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

} // namespace

template <typename scalar_t>
void forward(
    const Warp& warp,
    const at::Tensor& input,
    const at::Tensor& boxes,
    const at::Tensor& output,
    const at::Tensor& argmax) {
  using T = at::opmath_type<scalar_t>;
  const std::vector<Plan<T>> plans = make_plans<T>(warp, boxes);
  const at::Tensor packed = pack<scalar_t, T>(warp, input);
  const T* maps = packed.const_data_ptr<T>();
  scalar_t* output_data = output.mutable_data_ptr<scalar_t>();
  uint8_t* argmax_data = argmax.numel() ? argmax.mutable_data_ptr<uint8_t>() : nullptr;
  const int64_t blocks = block_count(warp);
  const int64_t cells = int64_t(warp.output_rows()) * warp.output_columns();

  // Block by block, and in a block box by box: a block of a map stays in the cache.
  at::parallel_for(0, blocks * warp.boxes, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> row(warp.pool * most_pixels(warp) * kBlock);
    std::vector<T> block(cells * kBlock);
    std::vector<Index<T>> block_argmax(argmax_data ? cells * kBlock : 0);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t k = task % warp.boxes;
      const int64_t first = task / warp.boxes * kBlock;
      const int channels = std::min<int64_t>(kBlock, warp.channels - first);
      run_forward(
          warp,
          maps + (plans[k].image * blocks + first / kBlock) * map_size(warp),
          plans[k],
          row.data(),
          block.data(),
          argmax_data ? block_argmax.data() : nullptr);
      const int64_t offset = (k * warp.channels + first) * cells;
      from_block(block.data(), cells, channels, output_data + offset);
      if (argmax_data) {
        from_block(block_argmax.data(), cells, channels, argmax_data + offset);
      }
    }
  });
}

// Every task owns a block of channels of an image and takes its boxes in order: no two write to the same
// place, and sums are always formed in the same order.
template <typename scalar_t>
void backward(
    const Warp& warp,
    const at::Tensor& grad,
    const at::Tensor& input,
    const at::Tensor& boxes,
    const at::Tensor& argmax,
    const at::Tensor& input_grad,
    const at::Tensor& sums) {
  using T = at::opmath_type<scalar_t>;
  const std::vector<Plan<T>> plans = make_plans<T>(warp, boxes);
  const int64_t blocks = block_count(warp);
  const int64_t cells = int64_t(warp.output_rows()) * warp.output_columns();
  const scalar_t* grad_data = grad.const_data_ptr<scalar_t>();
  const uint8_t* argmax_data = warp.pool > 1 ? argmax.const_data_ptr<uint8_t>() : nullptr;

  at::Tensor packed, packed_grad, block_sums;
  const T* maps = nullptr;
  T* map_grads = nullptr;
  T* sums_data = nullptr;
  if (sums.defined()) {
    packed = pack<scalar_t, T>(warp, input);
    maps = packed.const_data_ptr<T>();
    block_sums = at::zeros({blocks, warp.boxes, kBoxSums}, sums.options());
    sums_data = block_sums.mutable_data_ptr<T>();
  }
  if (input_grad.defined()) {
    packed_grad = at::zeros({warp.images * blocks * map_size(warp)}, boxes.options());
    map_grads = packed_grad.mutable_data_ptr<T>();
  }

  at::parallel_for(0, warp.images * blocks, 1, [&](int64_t begin, int64_t end) {
    std::vector<T> row(most_pixels(warp) * kBlock);
    std::vector<T> row_grad(most_pixels(warp) * kBlock);
    std::vector<T> block(cells * kBlock);
    std::vector<Index<T>> block_argmax(argmax_data ? cells * kBlock : 0);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % blocks * kBlock;
      const int channels = std::min<int64_t>(kBlock, warp.channels - first);
      for (int64_t k = 0; k < warp.boxes; ++k) {
        if (plans[k].image != task / blocks) {
          continue;
        }
        const int64_t offset = (k * warp.channels + first) * cells;
        to_block(grad_data + offset, cells, channels, block.data());
        if (argmax_data) {
          to_block(argmax_data + offset, cells, channels, block_argmax.data());
        }
        std::vector<T> lane_sums(kBoxSums * kBlock);
        run_backward(
            warp,
            block.data(),
            argmax_data ? block_argmax.data() : nullptr,
            maps ? maps + task * map_size(warp) : nullptr,
            plans[k],
            row.data(),
            row_grad.data(),
            map_grads ? map_grads + task * map_size(warp) : nullptr,
            lane_sums.data());
        for (int i = 0; sums_data && i < kBoxSums; ++i) {
          const T* lanes = lane_sums.data() + i * kBlock;
          sums_data[(task % blocks * warp.boxes + k) * kBoxSums + i] =
              std::accumulate(lanes, lanes + channels, T(0));
        }
      }
    }
  });
  if (sums.defined()) {
    sums.copy_(block_sums.sum(0));
  }
  if (input_grad.defined()) {
    unpack<scalar_t, T>(warp, packed_grad, input_grad);
  }
}

void forward_cpu(
    const Warp& warp,
    const at::Tensor& input,
    const at::Tensor& boxes,
    const at::Tensor& output,
    const at::Tensor& argmax) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "roi_warp", [&] {
    forward<scalar_t>(warp, input, boxes, output, argmax);
  });
}

void backward_cpu(
    const Warp& warp,
    const at::Tensor& grad,
    const at::Tensor& input,
    const at::Tensor& boxes,
    const at::Tensor& argmax,
    const at::Tensor& input_grad,
    const at::Tensor& sums) {
  AT_DISPATCH_FLOATING_TYPES_AND2(
      at::kHalf, at::kBFloat16, input.scalar_type(), "roi_warp_backward", [&] {
        backward<scalar_t>(warp, grad, input, boxes, argmax, input_grad, sums);
      });
}

} // namespace hybrid_cascade
