#include <emulated_cuda.h>
