// Tiles of edges through the block: TF32 on tensor cores.
#include "edge_block/choose_kernel.h"

namespace equistride {

namespace {
template <int ROWS> using Tf32 = TensorCores<Arithmetic::tf32, ROWS>;
}

template <> Kernel<float> kernel_for<float, Arithmetic::tf32>(const Layout &layout) {
    return choose_kernel<float, Tf32>(layout);
}

} // namespace equistride
