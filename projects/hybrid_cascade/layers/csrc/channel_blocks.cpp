// Copies to and from blocks of channels: transposes, by tiles that fit into the registers.
#include "channel_blocks.h"

#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__GNUC__) && defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector) // GCC has it from 12 on
#define HAS_SHUFFLE
#endif
#endif

namespace hybrid_cascade {
namespace {

#ifdef HAS_SHUFFLE
// A tile has kSide rows of 32 bytes, as many as they have numbers.
template <typename T>
constexpr int kSide = 32 / sizeof(T);
template <typename T>
using Vector [[gnu::vector_size(32)]] = T;

// In each square of 2 kStep x 2 kStep numbers, exchanges the upper right quarter and the lower left one.
template <int kStep, typename T, int... kLane>
INLINED void exchange_quarters(Vector<T>* tile, std::integer_sequence<int, kLane...>) {
  constexpr int lower = kSide<T>; // the index of the first number of the second vector
  for (int i = 0; i < kSide<T>; ++i) {
    if (!(i & kStep)) {
      const Vector<T> a = tile[i], b = tile[i + kStep];
      tile[i] = __builtin_shufflevector(a, b, (kLane & kStep ? lower + kLane - kStep : kLane)...);
      tile[i + kStep] = __builtin_shufflevector(a, b, (kLane & kStep ? lower + kLane : kLane + kStep)...);
    }
  }
}

template <typename T>
INLINED void transpose(Vector<T>* tile) {
  constexpr auto lanes = std::make_integer_sequence<int, kSide<T>>();
  exchange_quarters<1, T>(tile, lanes);
  exchange_quarters<2, T>(tile, lanes);
  if constexpr (kSide<T> == 8) {
    exchange_quarters<4, T>(tile, lanes);
  }
}

// Copy and convert kSide numbers.
template <typename From, typename T>
INLINED void load(const From* from, Vector<T>& to) {
  if constexpr (std::is_same_v<From, T>) {
    std::memcpy(&to, from, sizeof(to));
  } else {
    for (int i = 0; i < kSide<T>; ++i) {
      to[i] = static_cast<T>(from[i]);
    }
  }
}
template <typename T, typename To>
INLINED void store(const Vector<T>& from, To* to) {
  if constexpr (std::is_same_v<T, To>) {
    std::memcpy(to, &from, sizeof(from));
  } else {
    for (int i = 0; i < kSide<T>; ++i) {
      to[i] = static_cast<To>(from[i]);
    }
  }
}
#endif

// The channels of which tiles are made: all but a rest.
template <typename T>
int in_tiles(int channels) {
#ifdef HAS_SHUFFLE
  return channels / kSide<T> * kSide<T>;
#else
  return 0;
#endif
}

template <typename From, typename T>
INLINED void copy_to_block(const From* from, int64_t stride, int64_t cells, int channels, T* block) {
  const int tiled = in_tiles<T>(channels);
  int64_t whole = 0; // the cells in tiles
#ifdef HAS_SHUFFLE
  whole = cells / kSide<T> * kSide<T>;
  // Some channels at a time: processors read ahead in some places, not in 64.
  for (int first = 0; first < tiled; first += kSide<T>) {
    for (int64_t cell = 0; cell < whole; cell += kSide<T>) {
      Vector<T> tile[kSide<T>];
      for (int i = 0; i < kSide<T>; ++i) {
        load<From, T>(from + (first + i) * stride + cell, tile[i]);
      }
      transpose<T>(tile);
      for (int i = 0; i < kSide<T>; ++i) {
        store<T, T>(tile[i], block + (cell + i) * kBlock + first);
      }
    }
  }
#endif
  for (int64_t cell = tiled == kBlock ? whole : 0; cell < cells; ++cell) {
    for (int c = cell < whole ? tiled : 0; c < kBlock; ++c) {
      block[cell * kBlock + c] = c < channels ? static_cast<T>(from[c * stride + cell]) : T(0);
    }
  }
}

template <typename T, typename To>
INLINED void copy_from_block(const T* block, int64_t stride, int64_t cells, int channels, To* to) {
  const int tiled = in_tiles<T>(channels);
  int64_t whole = 0;
#ifdef HAS_SHUFFLE
  whole = cells / kSide<T> * kSide<T>;
  for (int first = 0; first < tiled; first += kSide<T>) {
    for (int64_t cell = 0; cell < whole; cell += kSide<T>) {
      Vector<T> tile[kSide<T>];
      for (int i = 0; i < kSide<T>; ++i) {
        load<T, T>(block + (cell + i) * kBlock + first, tile[i]);
      }
      transpose<T>(tile);
      for (int i = 0; i < kSide<T>; ++i) {
        store<T, To>(tile[i], to + (first + i) * stride + cell);
      }
    }
  }
#endif
  for (int c = 0; c < channels; ++c) {
    for (int64_t cell = c < tiled ? whole : 0; cell < cells; ++cell) {
      to[c * stride + cell] = static_cast<To>(block[cell * kBlock + c]);
    }
  }
}

} // namespace

// target_clones does not apply to templates, hence one function for each pair of types.
#define DEFINE(Outside, Inside)                                                                              \
  VECTORISED void to_block(                                                                                  \
      const Outside* from, int64_t stride, int64_t cells, int channels, Inside* block) {                     \
    copy_to_block(from, stride, cells, channels, block);                                                     \
  }                                                                                                          \
  VECTORISED void from_block(                                                                                \
      const Inside* block, int64_t stride, int64_t cells, int channels, Outside* to) {                       \
    copy_from_block(block, stride, cells, channels, to);                                                     \
  }
FOR_TYPES_OF_BLOCKS(DEFINE)
#undef DEFINE

} // namespace hybrid_cascade
