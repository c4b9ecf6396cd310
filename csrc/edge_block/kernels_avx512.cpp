// The loops for AVX-512: 64 bytes a vector.
#define EQUISTRIDE_VECTOR_BYTES 64
#include "edge_block/loops.h"

namespace equistride {

template <class Real> const EdgeKernels<Real> &avx512_edge_kernels() {
    static constexpr EdgeKernels<Real> kernels = make_edge_kernels<Real>("avx512");
    return kernels;
}

template const EdgeKernels<float> &avx512_edge_kernels<float>();
template const EdgeKernels<double> &avx512_edge_kernels<double>();

} // namespace equistride
