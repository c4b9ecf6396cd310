// Tiles of edges through the block: TF32 on tensor cores.
#include "edge_block/choose_kernel.h"

namespace equistride {

template Kernel<float> kernel_for<float, Arithmetic::tf32>(const Layout &layout);

} // namespace equistride
