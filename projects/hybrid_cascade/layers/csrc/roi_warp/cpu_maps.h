// Feature maps and their gradients as the CPU kernels of RoI warp read and write them. The legend is in
// roi_warp.h.
//
// Inner loops run over the contiguous channels of a block, whatever the strides and the type of the input.
// Maps that are stored like this already (channels-last) are read where they are; of others, what the boxes
// read is packed.
#pragma once

#include "cpu_reading.h"

#include <type_traits>

namespace hybrid_cascade::roi_warp {

// The features, from which rows of blocks are packed.
template <typename scalar_t, typename T>
class Features {
 public:
  Features(const Warp& warp, const at::Tensor& input)
      : warp(warp),
        data(input.const_data_ptr<scalar_t>()),
        strides(input.strides()),
        are_in_blocks(std::is_same_v<scalar_t, T> && strides[1] == 1 && warp.channels % kBlock == 0) {
  }

  // The size of a buffer for what any image needs of a block.
  int64_t most_packed(const std::vector<Reading>& readings) const {
    return are_in_blocks ? 0 : roi_warp::most_packed(readings);
  }

  // The block of an image that starts at channel `first`; `packed` is the buffer.
  MapBlock<const T> block(int64_t image, int64_t first, const Reading& reading, const T* packed) const {
    if constexpr (std::is_same_v<scalar_t, T>) {
      if (are_in_blocks) {
        return {start(image, first), strides[2], strides[3], warp.height, 0, warp.height};
      }
    }
    return reading.packed(packed, warp.height);
  }

  // Packs row y of that block, if it is to be packed.
  void pack_row(int64_t image, int64_t first, const Reading& reading, int y, T* packed) const {
    const Span span = reading.rows[y];
    if (are_in_blocks || span.size() == 0) {
      return;
    }
    const scalar_t* from = start(image, first) + y * strides[2] + span.begin * strides[3];
    T* to = reading.packed(packed, warp.height).row(y, nullptr).pixel(span.begin);
    const int channels = block_channels(warp.channels, first);
    if (strides[3] == 1) {
      to_block(from, strides[1], span.size(), channels, to);
      return;
    }
    for (int x = 0; x < span.size(); ++x) {
      for (int c = 0; c < kBlock; ++c) {
        to[int64_t(x) * kBlock + c] =
            c < channels ? static_cast<T>(from[x * strides[3] + c * strides[1]]) : T(0);
      }
    }
  }

 private:
  const scalar_t* start(int64_t image, int64_t first) const {
    return data + image * strides[0] + first * strides[1];
  }

  const Warp& warp;
  const scalar_t* data;
  const at::IntArrayRef strides;
  const bool are_in_blocks; // as the kernels read them
};

// The gradient of the features (N, C, h, w), contiguous, to which rows of packed blocks are copied.
template <typename scalar_t, typename T>
struct FeatureGradient {
  const Warp& warp;
  scalar_t* data;

  // Sets row y of a packed block to zero.
  void clear_row(const Reading& reading, int y, T* packed) const {
    const Span span = reading.rows[y];
    if (span.size() > 0) {
      T* row = reading.packed(packed, warp.height).row(y, nullptr).pixel(span.begin);
      std::fill_n(row, int64_t(span.size()) * kBlock, T(0));
    }
  }

  // Copies row y of the block of an image that starts at channel `first`. Pixels that no box reads are zero.
  void unpack_row(int64_t image, int64_t first, const Reading& reading, int y, T* packed) const {
    const int64_t area = int64_t(warp.height) * warp.width;
    const int channels = block_channels(warp.channels, first);
    const Span span = reading.rows.empty() ? Span() : reading.rows[y];
    const int begin = std::min(span.begin, warp.width), end = std::max(span.end, begin);
    scalar_t* row = data + (image * warp.channels + first) * area + int64_t(y) * warp.width;
    for (int c = 0; c < channels; ++c) {
      std::fill_n(row + c * area, begin, scalar_t(0));
      std::fill_n(row + c * area + end, warp.width - end, scalar_t(0));
    }
    if (begin < end) {
      const T* from = reading.packed(packed, warp.height).row(y, nullptr).pixel(begin);
      from_block(from, area, end - begin, channels, row + begin);
    }
  }
};

} // namespace hybrid_cascade::roi_warp
