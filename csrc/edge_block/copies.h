// Copies from global to shared memory that a thread begins and does not wait for: what is not needed at once comes
// while the block works on something else.
#pragma once
#include "cuda_launch.h"

namespace equistride {

#ifdef __CUDACC__
// Of 4, 8 or 16 bytes, which both places are multiples of.
template <int BYTES> __device__ __forceinline__ void begin_copy(void *shared, const void *global) {
    const auto to = unsigned(__cvta_generic_to_shared(shared));
    if constexpr (BYTES == 16) // past L1, where what is read once is of no use
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(global), "n"(BYTES) : "memory");
}
// The copies that this thread has begun since the last call are a group.
__device__ __forceinline__ void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Wait for this thread's copies, but for those of the last GROUPS groups; those of others are there after a barrier.
template <int GROUPS> __device__ __forceinline__ void wait_but() {
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}
#endif

} // namespace equistride
