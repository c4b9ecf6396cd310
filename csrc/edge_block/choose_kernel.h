// The kernels of one arithmetic, for tiles of 4 ROWS edges: the largest that fits into shared memory, or, where a
// matrix would be read for too few edges, one that keeps its tile in global memory.
#pragma once
#include "edge_block/tile_kernel.h"

#include <type_traits>

namespace equistride {

namespace {

template <class Real, Arithmetic HOW, int ROWS, bool SHARED = true> constexpr Kernel<Real> kernel_of() {
    using How = std::conditional_t<HOW == Arithmetic::fma, Fma<Real, ROWS>, TensorCores<HOW, ROWS>>;
    return {run_tiles<How, SHARED>, How::EDGES, SHARED};
}

} // namespace

template <class Real, Arithmetic HOW> Kernel<Real> kernel_for(const Layout &layout) {
    const auto fits = [limit = shared_memory_limit(), &layout](const Kernel<Real> &kernel) {
        return int64_t(kernel.edges) * layout.edge * int64_t(sizeof(Real)) <= limit;
    };
    if constexpr (HOW != Arithmetic::fma) // takes about as long as the matrices do for 20 edges
        if (constexpr auto kernel = kernel_of<Real, HOW, 7>(); fits(kernel))
            return kernel;
    if constexpr (sizeof(Real) == 4) // float64 has no registers for more than 12 edges
        if (constexpr auto kernel = kernel_of<Real, HOW, 5>(); fits(kernel))
            return kernel;
    const auto kernel = kernel_of<Real, HOW, 3>();
    return fits(kernel) ? kernel : kernel_of<Real, HOW, 3, false>();
}

} // namespace equistride
