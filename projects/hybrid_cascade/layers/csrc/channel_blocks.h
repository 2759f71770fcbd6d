// Shared by the CPU kernels: their inner loops run over blocks of kBlock contiguous channels.
//
// Legend: C channels.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__linux__) && AT_PARALLEL_OPENMP && !defined(_OPENMP)
#error "at::parallel_for would run in one thread: compile with -fopenmp"
#endif

// Compiles a function for several instruction sets; the loader chooses the best that the processor has.
#if defined(__x86_64__) && defined(__linux__) && !defined(__clang__) && __GNUC__ >= 12
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif
#if defined(__GNUC__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) // GCC has it from 12 on
#define HAS_SHUFFLE
#endif
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

// Copies (channels, cells), one block of a box, to (cells, kBlock).
template <typename From, typename To>
INLINED void to_block(const From* from, int64_t cells, int channels, To* block) {
  for (int c = 0; c < channels; ++c) {
    for (int64_t cell = 0; cell < cells; ++cell) {
      block[cell * kBlock + c] = static_cast<To>(from[c * cells + cell]);
    }
  }
}

// Copies (cells, kBlock) to (channels, cells).
template <typename From, typename To>
void from_block(const From* from, int64_t cells, int channels, To* to) {
  int64_t done = 0;
#ifdef HAS_SHUFFLE
  // Four cells of four channels at a time: they are transposed within registers.
  using Vector [[gnu::vector_size(4 * sizeof(From))]] = From;
  for (; done + 4 <= cells; done += 4) {
    for (int c = 0; c < channels; c += 4) {
      Vector cell[4];
      for (int i = 0; i < 4; ++i) {
        std::memcpy(&cell[i], from + (done + i) * kBlock + c, sizeof(Vector));
      }
      const Vector low01 = __builtin_shufflevector(cell[0], cell[1], 0, 4, 1, 5);
      const Vector high01 = __builtin_shufflevector(cell[0], cell[1], 2, 6, 3, 7);
      const Vector low23 = __builtin_shufflevector(cell[2], cell[3], 0, 4, 1, 5);
      const Vector high23 = __builtin_shufflevector(cell[2], cell[3], 2, 6, 3, 7);
      const Vector channel[4] = {
          __builtin_shufflevector(low01, low23, 0, 1, 4, 5),
          __builtin_shufflevector(low01, low23, 2, 3, 6, 7),
          __builtin_shufflevector(high01, high23, 0, 1, 4, 5),
          __builtin_shufflevector(high01, high23, 2, 3, 6, 7)};
      for (int i = 0; i < std::min(4, channels - c); ++i) {
        for (int j = 0; j < 4; ++j) {
          to[(c + i) * cells + done + j] = static_cast<To>(channel[i][j]);
        }
      }
    }
  }
#endif
  for (int c = 0; c < channels; ++c) {
    for (int64_t cell = done; cell < cells; ++cell) {
      to[c * cells + cell] = static_cast<To>(from[cell * kBlock + c]);
    }
  }
}

} // namespace hybrid_cascade
