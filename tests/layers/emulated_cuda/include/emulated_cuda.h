// Runs CUDA kernels on the CPU, to test them where there is no GPU.
//
// Blocks run one after another, in random order. The threads of a block are fibers: a thread runs until it
// comes to a barrier or a shuffle, and then a random other one goes on. Shared memory begins as NaN. Thus a
// result that needs a barrier which is not there differs from the right one.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <c10/macros/Macros.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__
#undef CUDA_KERNEL_ASSERT
#define CUDA_KERNEL_ASSERT(condition) \
  if (!(condition)) { \
    throw std::runtime_error("device assertion: " #condition); \
  }
#define C10_CUDA_KERNEL_LAUNCH_CHECK()

struct dim3 {
  unsigned x, y, z;
  dim3(int64_t x = 1, int64_t y = 1, int64_t z = 1) : x(x), y(y), z(z) {
    emulated_check(x >= 0 && y >= 0 && z >= 0);
  }
  size_t volume() const {
    return size_t(x) * y * z;
  }

 private:
  static void emulated_check(bool is_valid) {
    if (!is_valid) {
      throw std::runtime_error("a dimension of a launch is negative");
    }
  }
};

inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated_cuda {

constexpr unsigned kWarp = 32;
constexpr size_t kStack = 128 * 1024;
constexpr size_t kMostSharedMemory = 48 * 1024; // without cudaFuncSetAttribute

enum class Wait { kNone, kBlock, kWarp, kEnd };

struct Thread {
  ucontext_t start;
  jmp_buf place; // where it goes on; jumps are much faster than changes of contexts
  bool has_started;
  std::unique_ptr<char[]> stack{new char[kStack]};
  dim3 index;
  Wait waits_for;
};

// The block that runs.
struct Block {
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<unsigned> ready; // threads that can go on
  unsigned current;
  jmp_buf scheduler;
  std::function<void()> kernel;
  std::exception_ptr error;
  std::unique_ptr<unsigned char[]> dynamic_memory;
  size_t dynamic_bytes;
  std::map<int, std::vector<unsigned char>> static_memory; // by the line of its declaration
  std::vector<uint64_t> shuffled; // a value of each thread
};

inline Block block;
inline std::mt19937 randomness(0);

inline void pass_control() {
  if (_setjmp(block.threads[block.current]->place) == 0) {
    _longjmp(block.scheduler, 1);
  }
}

// Returns when the current thread passes control.
inline void go_on() {
  Thread& thread = *block.threads[block.current];
  threadIdx = thread.index;
  if (_setjmp(block.scheduler) == 0) {
    if (std::exchange(thread.has_started, true)) {
      _longjmp(thread.place, 1);
    }
    setcontext(&thread.start);
  }
}

// Lets the threads from first to last go on if all of them wait for the same.
inline void release(unsigned first, unsigned last, Wait wait) {
  const auto begin = block.threads.begin();
  const auto waits = [&](const auto& thread) { return thread->waits_for == wait; };
  if (std::all_of(begin + first, begin + last, waits)) {
    for (unsigned i = first; i < last; ++i) {
      block.threads[i]->waits_for = Wait::kNone;
      block.ready.push_back(i);
    }
  }
}

inline void wait_for(Wait wait) {
  block.threads[block.current]->waits_for = wait;
  const unsigned count = block.threads.size(), warp = block.current / kWarp * kWarp;
  wait == Wait::kBlock ? release(0, count, wait) : release(warp, std::min(warp + kWarp, count), wait);
  pass_control();
}

inline void run_thread() {
  try {
    block.kernel();
  } catch (...) {
    block.error = std::current_exception();
  }
  block.threads[block.current]->waits_for = Wait::kEnd;
  pass_control();
}

inline void run_block() {
  const unsigned count = blockDim.volume();
  while (block.threads.size() < count) {
    block.threads.push_back(std::make_unique<Thread>());
  }
  block.threads.resize(count);
  block.ready.clear();
  block.static_memory.clear();
  block.shuffled.assign(count, 0);
  std::memset(block.dynamic_memory.get(), 0xff, block.dynamic_bytes);
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = *block.threads[i];
    thread.waits_for = Wait::kNone;
    thread.index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y));
    thread.has_started = false;
    getcontext(&thread.start);
    thread.start.uc_stack = {thread.stack.get(), 0, kStack};
    thread.start.uc_link = nullptr;
    makecontext(&thread.start, run_thread, 0);
    block.ready.push_back(i);
  }
  while (!block.ready.empty()) {
    std::swap(block.ready[randomness() % block.ready.size()], block.ready.back());
    block.current = block.ready.back();
    block.ready.pop_back();
    go_on();
    if (block.error) {
      std::rethrow_exception(std::exchange(block.error, nullptr));
    }
  }
  for (const auto& thread : block.threads) {
    if (thread->waits_for != Wait::kEnd) {
      throw std::runtime_error("a barrier or a shuffle is not reached by all threads");
    }
  }
}

inline unsigned char* dynamic_shared_memory() {
  return block.dynamic_memory.get();
}

template <typename T, int line>
T& static_shared_memory() {
  auto& memory = block.static_memory[line];
  if (memory.empty()) {
    memory.assign(sizeof(T), 0xff);
  }
  return *reinterpret_cast<T*>(memory.data());
}

// kernel<<<grid, threads, bytes, stream>>>(arguments...) is launch(kernel, grid, threads, bytes,
// stream)(arguments...).
template <typename... Parameters>
auto launch(void (*kernel)(Parameters...), dim3 grid, dim3 threads, size_t bytes = 0, int stream = 0) {
  return [=](auto... arguments) {
    if (grid.volume() == 0 || grid.x > 2147483647 || grid.y > 65535 || grid.z > 65535 ||
        threads.volume() == 0 || threads.volume() > 1024 || bytes > kMostSharedMemory) {
      throw std::runtime_error("invalid configuration of a launch");
    }
    gridDim = grid;
    blockDim = threads;
    block.kernel = [&] { kernel(arguments...); };
    block.dynamic_memory.reset(new unsigned char[bytes]); // of this size, for address sanitizers
    block.dynamic_bytes = bytes;
    std::vector<size_t> order(grid.volume());
    for (size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
    }
    std::shuffle(order.begin(), order.end(), randomness);
    for (const size_t i : order) {
      blockIdx = dim3(i % grid.x, i / grid.x % grid.y, i / (size_t(grid.x) * grid.y));
      run_block();
    }
  };
}

} // namespace emulated_cuda

inline void __syncthreads() {
  emulated_cuda::wait_for(emulated_cuda::Wait::kBlock);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance) {
  using namespace emulated_cuda;
  static_assert(sizeof(T) <= sizeof(uint64_t));
  if (mask != 0xffffffff) {
    throw std::runtime_error("only shuffles of whole warps are emulated");
  }
  const unsigned self = block.current, other = self + distance;
  std::memcpy(&block.shuffled[self], &value, sizeof(T));
  wait_for(Wait::kWarp);
  if (other / kWarp == self / kWarp && other < block.threads.size()) {
    std::memcpy(&value, &block.shuffled[other], sizeof(T));
  }
  wait_for(Wait::kWarp);
  return value;
}

template <typename T>
T atomicAdd(T* address, T value) {
  const T before = *address;
  *address += value;
  return before;
}

template <typename T>
T min(T a, T b) {
  return std::min(a, b);
}

namespace c10::cuda {
inline int getCurrentCUDAStream() {
  return 0;
}
} // namespace c10::cuda
