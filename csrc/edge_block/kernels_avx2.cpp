// The loops for AVX2 and FMA: 32 bytes a vector.
#define EQUISTRIDE_VECTOR_BYTES 32
#include "edge_block/loops.h"

namespace equistride {

template <class Real> const EdgeKernels<Real> &avx2_edge_kernels() {
    static constexpr EdgeKernels<Real> kernels = make_edge_kernels<Real>("avx2");
    return kernels;
}

template const EdgeKernels<float> &avx2_edge_kernels<float>();
template const EdgeKernels<double> &avx2_edge_kernels<double>();

} // namespace equistride
