// The library `hybrid_cascade`. Each operator adds its own schema and kernels to it.
#include <torch/library.h>

TORCH_LIBRARY(hybrid_cascade, library) {
  library.def("compiled_with_cuda() -> bool", [] {
#ifdef WITH_CUDA
    return true;
#else
    return false;
#endif
  });
}
