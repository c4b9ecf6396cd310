// Tiles of edges through the block: float64 by FMA.
#include "edge_block/choose_kernel.h"

namespace equistride {

namespace {
template <int ROWS> using Fma64 = Fma<double, ROWS>;
}

template <> Kernel<double> kernel_for<double, Arithmetic::fma>(const Layout &layout) {
    return choose_kernel<double, Fma64>(layout);
}

} // namespace equistride
