// The convolution of float64.
#include "tensor_product/convolve_kernels.h"

namespace equistride {

template Tensor convolve<double>(const Convolution &, const Paths &, int64_t);
template Gradients convolve_backward<double>(const Tensor &, const Convolution &, const Paths &, Wanted);

} // namespace equistride
