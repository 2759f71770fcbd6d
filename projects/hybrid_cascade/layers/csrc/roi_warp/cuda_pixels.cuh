// How RoI warp's CUDA kernels read pixels and add to them: channels last, four neighbouring channels in each
// lane of a warp, by one instruction. The legend is in roi_warp.h.
#pragma once

#include "roi_warp.h"

#include <ATen/ops/constant_pad_nd.h>

#include <algorithm>
#include <limits>
#include <type_traits>

namespace hybrid_cascade::roi_warp {

constexpr int kLanes = 32; // of a warp
constexpr int kPerLane = 4; // channels of a lane

// The channels of a lane, in memory.
template <typename scalar_t>
struct alignas(std::min<size_t>(kPerLane * sizeof(scalar_t), 16)) Quad {
  scalar_t values[kPerLane];
};

// Returns features as the kernels read them: channels last, in whole quads, aligned to these.
template <typename scalar_t>
at::Tensor to_quads(const at::Tensor& input) {
  const int64_t missing = (kPerLane - input.size(1) % kPerLane) % kPerLane;
  const at::Tensor padded = missing ? at::constant_pad_nd(input, {0, 0, 0, 0, 0, missing}) : input;
  const at::Tensor channels_last = padded.contiguous(at::MemoryFormat::ChannelsLast);
  const auto place = reinterpret_cast<uintptr_t>(channels_last.const_data_ptr());
  return place % alignof(Quad<scalar_t>) ? channels_last.clone() : channels_last;
}

// From a pixel to the next, in bytes, with numbers of `size` bytes.
inline uint32_t quad_bytes(int64_t channels, size_t size) {
  const int64_t quads = (channels + kPerLane - 1) / kPerLane;
  const int64_t most = std::numeric_limits<uint32_t>::max() / (kPerLane * size);
  TORCH_CHECK(quads <= most, "roi_warp: a pixel has more than 4 GB: ", channels, " channels");
  return static_cast<uint32_t>(quads * kPerLane * size);
}

// Returns the address `count` times `bytes` after `first`, by one instruction. The compiler would multiply
// and add 64-bit numbers, which takes several. It lies in global memory, which the compiler can't tell
// either.
template <typename T>
__device__ T* address(T* first, uint32_t count, uint32_t bytes = sizeof(T)) {
#ifdef __CUDA_ARCH__
  T* result;
  asm("mad.wide.u32 %0, %1, %2, %3;" : "=l"(result) : "r"(count), "r"(bytes), "l"(first));
  __builtin_assume(__isGlobal(result));
  return result;
#else
  return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(first) + uint64_t(count) * bytes);
#endif
}

alignas(16) __device__ const double kZeros[kPerLane] = {}; // a quad of any type

// A row of pixels in the channels of a lane. Rows outside of the map have kZeros, 0 bytes apart.
struct PixelRow {
  const char* first;
  uint32_t pixel_bytes;

  template <typename scalar_t, typename T>
  __device__ void read(int x, T (&values)[kPerLane]) const {
    const char* place = address(first, x, pixel_bytes);
    const Quad<scalar_t> quad = *reinterpret_cast<const Quad<scalar_t>*>(place);
#pragma unroll
    for (int part = 0; part < kPerLane; ++part) {
      values[part] = static_cast<T>(quad.values[part]);
    }
  }
};

// The map of an image, in the channels of a lane.
struct LaneMap {
  const char* data; // null in lanes that have no channels
  uint32_t pixel_bytes;
  int height, width;

  __device__ PixelRow row(int y) const {
    if (data == nullptr || y < 0 || y >= height) {
      return {reinterpret_cast<const char*>(kZeros), 0};
    }
    return {data + int64_t(y) * width * pixel_bytes, pixel_bytes};
  }
};

// Of the two values, the larger one, or NaN if one is NaN.
template <typename T>
__device__ T maximum(T a, T b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, float>) {
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
  }
#endif
  return replaces(b, a) ? b : a;
}

// Makes the compiler compute a value here, instead of later, behind a branch that overwrites what the value
// is computed from, which it'd have to copy.
template <typename T>
__device__ void compute_here(T& value) {
#ifdef __CUDA_ARCH__
  if constexpr (std::is_same_v<T, float>) {
    asm volatile("" : "+f"(value));
  } else {
    asm volatile("" : "+d"(value));
  }
#endif
}

// Adds to the channels of a lane in one pixel.
template <typename T>
__device__ void add_atomically(T* pixel, const T (&values)[kPerLane]) {
#pragma unroll
  for (int part = 0; part < kPerLane; ++part) {
    atomicAdd(pixel + part, values[part]);
  }
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
inline __device__ void add_atomically(float* pixel, const float (&values)[kPerLane]) {
  atomicAdd(reinterpret_cast<float4*>(pixel), make_float4(values[0], values[1], values[2], values[3]));
}
#endif

// Of the channels of a lane, in one row of samples or several.
template <typename T>
__device__ void copy(const T (&from)[kPerLane], T (&to)[kPerLane]) {
#pragma unroll
  for (int part = 0; part < kPerLane; ++part) {
    to[part] = from[part];
  }
}
template <typename T>
__device__ void clear(T (&values)[kPerLane]) {
#pragma unroll
  for (int part = 0; part < kPerLane; ++part) {
    values[part] = 0;
  }
}
template <typename T, int kRows>
__device__ void copy(const T (&from)[kRows][kPerLane], T (&to)[kRows][kPerLane]) {
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    copy(from[row], to[row]);
  }
}
template <typename T, int kRows>
__device__ void clear(T (&values)[kRows][kPerLane]) {
#pragma unroll
  for (int row = 0; row < kRows; ++row) {
    clear(values[row]);
  }
}

} // namespace hybrid_cascade::roi_warp
