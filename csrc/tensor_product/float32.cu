// The convolution of float32.
#include "tensor_product/convolve_kernels.h"

namespace equistride {

template Tensor convolve<float>(const Convolution &, const Paths &, int64_t);
template Gradients convolve_backward<float>(const Tensor &, const Convolution &, const Paths &, Wanted);

} // namespace equistride
