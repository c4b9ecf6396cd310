// The convolution on the GPU: checks, and the kernels of the numbers' type (convolve_kernels.h).
#include "cuda_launch.h"
#include "tensor_product/convolve.h"

#include <ATen/Dispatch.h>

namespace equistride {

namespace {

Tensor convolve_cuda(const Convolution &convolution, int64_t receivers) {
    const Paths paths = check_convolution(convolution);
    check_receivers(receivers);
    const c10::cuda::CUDAGuard guard(convolution.x.device());
    return AT_DISPATCH_FLOATING_TYPES(convolution.x.scalar_type(), "tensor_product_cuda",
                                      [&] { return convolve<scalar_t>(convolution, paths, receivers); });
}

Gradients convolve_backward_cuda(const Tensor &grad, const Convolution &convolution, Wanted wanted) {
    const Paths paths = check_convolution(convolution);
    check_grad(grad, convolution.x, paths);
    const c10::cuda::CUDAGuard guard(convolution.x.device());
    return AT_DISPATCH_FLOATING_TYPES(convolution.x.scalar_type(), "tensor_product_backward_cuda",
                                      [&] { return convolve_backward<scalar_t>(grad, convolution, paths, wanted); });
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, CUDA, m) { implement_convolution<convolve_cuda, convolve_backward_cuda>(m); }

} // namespace equistride
