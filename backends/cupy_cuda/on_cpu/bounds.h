// An index beyond an array of a kernel, local or shared, ends the launch and says where.
//
// The compiler checks each index where it is told to (-fsanitize=bounds), and calls this function of its
// run-time library, which here is ours: so that library is not needed.
#pragma once

#include "block.h"

namespace cuda_on_cpu {

// How the compiler describes what it found: LLVM's compiler-rt, ubsan_handlers.h (OutOfBoundsData).
struct Found {
  const char* file;
  uint32_t line, column;
};

}  // namespace cuda_on_cpu

extern "C" __attribute__((visibility("hidden"))) void __ubsan_handle_out_of_bounds_abort(
    cuda_on_cpu::Found* found, uintptr_t index) {
  using namespace cuda_on_cpu;
  describe(current, {found->file, (int)found->line}, "index %lld is beyond the array", (long long)index);
  go(fibers[current], scheduler);
  __builtin_unreachable();
}
