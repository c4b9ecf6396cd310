// The loops for any processor: 16 bytes a vector, which every compiler knows how to make.
#define EQUISTRIDE_VECTOR_BYTES 16
#include "tensor_product/loops.h"

namespace equistride {

template <class Real> const Kernels<Real> &portable_kernels() {
    static constexpr Kernels<Real> kernels = make_kernels<Real>("portable");
    return kernels;
}

template const Kernels<float> &portable_kernels<float>();
template const Kernels<double> &portable_kernels<double>();

} // namespace equistride
