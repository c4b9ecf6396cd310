// Tiles of edges through the block: float32 on tensor cores, factors split.
#include "edge_block/choose_kernel.h"

namespace equistride {

template Kernel<float> kernel_for<float, Arithmetic::split>(const Layout &layout);

} // namespace equistride
