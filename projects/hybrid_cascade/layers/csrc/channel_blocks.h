// Shared by the CPU kernels: their inner loops run over blocks of kBlock contiguous channels.
//
// Legend: C channels.
#pragma once

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#if defined(__linux__) && AT_PARALLEL_OPENMP && !defined(_OPENMP)
#error "at::parallel_for would run in one thread: compile with -fopenmp"
#endif

// Compiles a function for several instruction sets; the loader chooses the best that the processor has.
#if defined(__x86_64__) && defined(__linux__) && !defined(__clang__) && __GNUC__ >= 12
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

// Functions that a VECTORISED function calls must be inlined into it, or they miss its instruction set.
#define INLINED inline __attribute__((always_inline))

namespace hybrid_cascade {

constexpr int kBlock = 64; // faster than 32: more channels share the work for a sample

// The number of blocks that hold C channels.
inline int64_t block_count(int64_t channels) {
  return (channels + kBlock - 1) / kBlock;
}

// The number of channels in the block that starts at channel `first`: the last block may not be full.
inline int block_channels(int64_t channels, int64_t first) {
  return static_cast<int>(std::min<int64_t>(kBlock, channels - first));
}

// Returns an array that is not filled: the system gives its pages when they are used.
template <typename T>
std::unique_ptr<T[]> make_buffer(int64_t size) {
  return std::unique_ptr<T[]>(new T[size]);
}

// to_block copies (channels, cells), whose channels are `stride` apart, to (cells, kBlock); channels that the
// block lacks are zero. from_block copies (cells, kBlock) back. X(outside, inside): the types of both sides.
#define FOR_TYPES_OF_BLOCKS(X)                                                                               \
  X(float, float)                                                                                            \
  X(double, double)                                                                                          \
  X(c10::Half, float)                                                                                        \
  X(c10::BFloat16, float)                                                                                    \
  X(uint8_t, int32_t)                                                                                        \
  X(uint8_t, int64_t)
#define DECLARE(Outside, Inside)                                                                             \
  void to_block(const Outside* from, int64_t stride, int64_t cells, int channels, Inside* block);            \
  void from_block(const Inside* block, int64_t stride, int64_t cells, int channels, Outside* to);
FOR_TYPES_OF_BLOCKS(DECLARE)
#undef DECLARE

} // namespace hybrid_cascade
