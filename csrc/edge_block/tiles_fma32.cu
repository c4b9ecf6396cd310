// Tiles of edges through the block: float32 by FMA.
#include "edge_block/choose_kernel.h"

namespace equistride {

namespace {
template <int ROWS> using Fma32 = Fma<float, ROWS>;
}

template <> Kernel<float> kernel_for<float, Arithmetic::fma>(const Layout &layout) {
    return choose_kernel<float, Fma32>(layout);
}

} // namespace equistride
