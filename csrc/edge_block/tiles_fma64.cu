// Tiles of edges through the block: float64 by FMA.
#include "edge_block/choose_kernel.h"

namespace equistride {

template Kernel<double> kernel_for<double, Arithmetic::fma>(const Layout &layout);

} // namespace equistride
