// The loops for AVX2 and FMA: 32 bytes a vector.
#define EQUISTRIDE_VECTOR_BYTES 32
#include "tensor_product/loops.h"

namespace equistride {

template <class Real> const Kernels<Real> &avx2_kernels() {
    static constexpr Kernels<Real> kernels = make_kernels<Real>("avx2");
    return kernels;
}

template const Kernels<float> &avx2_kernels<float>();
template const Kernels<double> &avx2_kernels<double>();

} // namespace equistride
