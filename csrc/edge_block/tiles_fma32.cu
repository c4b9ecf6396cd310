// Tiles of edges through the block: float32 by FMA.
#include "edge_block/choose_kernel.h"

namespace equistride {

template Kernel<float> kernel_for<float, Arithmetic::fma>(const Layout &layout);

} // namespace equistride
