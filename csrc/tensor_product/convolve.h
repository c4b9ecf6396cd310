// The convolution on the GPU for one type of numbers; each is compiled in a file of its own.
#pragma once
#include "tensor_product/tensor_product.h"

namespace equistride {

template <class Real> Tensor convolve(const Convolution &convolution, const Paths &paths, int64_t receivers);
template <class Real>
Gradients convolve_backward(const Tensor &grad, const Convolution &convolution, const Paths &paths, Wanted wanted);

} // namespace equistride
