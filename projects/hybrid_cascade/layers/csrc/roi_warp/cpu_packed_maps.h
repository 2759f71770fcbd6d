// Feature maps as the CPU kernels of RoI warp read them. The legend is in roi_warp.h.
//
// Maps are packed into blocks of kBlock channels, (N, blocks, h + margin, w + margin, kBlock). Every inner
// loop then runs over the contiguous channels of a block, whatever the strides and the type of the input, and
// a block of a map stays in the cache while all boxes read it.
#pragma once

#include "../channel_blocks.h"
#include "roi_warp.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

namespace hybrid_cascade::roi_warp {

// Packed maps are surrounded by zeros. Samples outside the map read the two rows and columns before it; the
// second of these is also the neighbour of pixel 0. One row and one column follow the map.
constexpr int kBefore = 2;
constexpr int kMargin = kBefore + 1;
static_assert(kOutside == -kBefore, "the pixel of samples outside the map is the first of the margin");

// The elements of a row of one block of a packed map.
INLINED int64_t packed_row_size(const Warp& warp) {
  return (int64_t(warp.width) + kMargin) * kBlock;
}

// The elements of one block of a packed map.
inline int64_t packed_map_size(const Warp& warp) {
  return (int64_t(warp.height) + kMargin) * packed_row_size(warp);
}

// Where row y of a map begins, behind the margin. `map` counts the blocks of all images.
inline int64_t packed_row(const Warp& warp, int64_t map, int64_t y) {
  return (map * (warp.height + kMargin) + y + kBefore) * packed_row_size(warp) + kBefore * kBlock;
}

template <typename scalar_t, typename T>
at::Tensor pack(const Warp& warp, const at::Tensor& input) {
  const int64_t blocks = block_count(warp.channels);
  const at::Tensor packed = at::zeros(
      {warp.images, blocks, int64_t(warp.height) + kMargin, int64_t(warp.width) + kMargin, kBlock},
      input.options().dtype(c10::CppTypeToScalarType<T>::value));
  const scalar_t* from = input.const_data_ptr<scalar_t>();
  T* to = packed.mutable_data_ptr<T>();
  const auto strides = input.strides();
  at::parallel_for(0, warp.images * blocks * warp.height, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t y = task % warp.height;
      const int64_t map = task / warp.height;
      const int64_t first = map % blocks * kBlock;
      const int channels = block_channels(warp.channels, first);
      const scalar_t* source = from + map / blocks * strides[0] + first * strides[1] + y * strides[2];
      T* row = to + packed_row(warp, map, y);
      for (int c = 0; c < channels; ++c) {
        for (int64_t x = 0; x < warp.width; ++x) {
          row[x * kBlock + c] = static_cast<T>(source[c * strides[1] + x * strides[3]]);
        }
      }
    }
  });
  return packed;
}

// Copies packed maps, without their margins, to `output` (N, C, h, w).
template <typename scalar_t, typename T>
void unpack(const Warp& warp, const at::Tensor& packed, const at::Tensor& output) {
  const int64_t blocks = block_count(warp.channels);
  const T* from = packed.const_data_ptr<T>();
  scalar_t* to = output.mutable_data_ptr<scalar_t>();
  at::parallel_for(0, warp.images * warp.channels, 1, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t channel = plane % warp.channels;
      const int64_t map = plane / warp.channels * blocks + channel / kBlock;
      for (int64_t y = 0; y < warp.height; ++y) {
        const T* row = from + packed_row(warp, map, y) + channel % kBlock;
        scalar_t* target = to + (plane * warp.height + y) * warp.width;
        for (int64_t x = 0; x < warp.width; ++x) {
          target[x] = static_cast<scalar_t>(row[x * kBlock]);
        }
      }
    }
  });
}

} // namespace hybrid_cascade::roi_warp
