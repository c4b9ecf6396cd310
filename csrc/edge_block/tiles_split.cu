// Tiles of edges through the block: float32 on tensor cores, factors split.
#include "edge_block/choose_kernel.h"

namespace equistride {

namespace {
template <int ROWS> using Split = TensorCores<Arithmetic::split, ROWS>;
}

template <> Kernel<float> kernel_for<float, Arithmetic::split>(const Layout &layout) {
    return choose_kernel<float, Split>(layout);
}

} // namespace equistride
