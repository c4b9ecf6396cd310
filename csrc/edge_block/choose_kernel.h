// The kernels of one arithmetic, for tiles of 4 ROWS edges: the largest that fits into shared memory, or, where a
// matrix would be read for too few edges, one that keeps its tile in global memory.
#pragma once
#include "edge_block/tile_kernel.h"

namespace equistride {

namespace {

template <class How, bool SHARED> constexpr Kernel<typename How::Real> kernel_of() {
    return {run_tiles<How, SHARED>, How::EDGES, SHARED};
}

template <class Real, template <int> class How> Kernel<Real> choose_kernel(const Layout &layout) {
    const auto fits = [limit = shared_memory_limit(), &layout](const Kernel<Real> &kernel) {
        return int64_t(kernel.edges) * layout.edge * int64_t(sizeof(Real)) <= limit;
    };
    if constexpr (sizeof(Real) == 4) // float64 has no registers for more than 12 edges
        for (const auto &kernel : {kernel_of<How<7>, true>(), kernel_of<How<5>, true>()})
            if (fits(kernel))
                return kernel;
    const auto kernel = kernel_of<How<3>, true>();
    return fits(kernel) ? kernel : kernel_of<How<3>, false>();
}

} // namespace

} // namespace equistride
