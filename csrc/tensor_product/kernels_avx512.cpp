// The loops for AVX-512: 64 bytes a vector.
#define EQUISTRIDE_VECTOR_BYTES 64
#include "tensor_product/loops.h"

namespace equistride {

template <class Real> const Kernels<Real> &avx512_kernels() {
    static constexpr Kernels<Real> kernels = make_kernels<Real>("avx512");
    return kernels;
}

template const Kernels<float> &avx512_kernels<float>();
template const Kernels<double> &avx512_kernels<double>();

} // namespace equistride
