// The loops for any processor: 16 bytes a vector, which every compiler knows how to make.
#define EQUISTRIDE_VECTOR_BYTES 16
#include "edge_block/loops.h"

namespace equistride {

template <class Real> const EdgeKernels<Real> &portable_edge_kernels() {
    static constexpr EdgeKernels<Real> kernels = make_edge_kernels<Real>("portable");
    return kernels;
}

template const EdgeKernels<float> &portable_edge_kernels<float>();
template const EdgeKernels<double> &portable_edge_kernels<double>();

} // namespace equistride
