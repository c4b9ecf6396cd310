// The operators' names and types, their shapes, and which file holds each device's kernel.
#include "tensor_product/tensor_product.h"

namespace equistride {

namespace {

// Sizes may be symbols here.
Tensor convolve_any(const Convolution &in, c10::SymInt receivers) {
    return at::empty_symint({std::move(receivers), check_convolution(in).out_width}, in.x.options());
}

Gradients convolve_backward_any(const Tensor &grad, const Convolution &in, Wanted wanted) {
    check_grad(grad, in.x, check_convolution(in));
    return {memory_like(in.x, wanted[0]), memory_like(in.y, wanted[1]), memory_like(in.third(), wanted[2])};
}

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
    m.def("tensor_product(Tensor x, Tensor y, Tensor weights, Tensor edge_index, int[] paths, float[] couplings, "
          "SymInt num_receivers) -> Tensor",
          tags);
    m.def("tensor_product_backward(Tensor grad, Tensor x, Tensor y, Tensor weights, Tensor edge_index, int[] paths, "
          "float[] couplings, bool[3] wanted) -> (Tensor grad_x, Tensor grad_y, Tensor grad_weights)",
          tags);
    m.def("tensor_product_table(Tensor x, Tensor y, Tensor lengths, Tensor table, float start, float step, "
          "Tensor edge_index, int[] paths, float[] couplings, SymInt num_receivers) -> Tensor",
          tags);
    m.def("tensor_product_table_backward(Tensor grad, Tensor x, Tensor y, Tensor lengths, Tensor table, float start, "
          "float step, Tensor edge_index, int[] paths, float[] couplings, bool[3] wanted) "
          "-> (Tensor grad_x, Tensor grad_y, Tensor grad_lengths)",
          tags);
    m.def("tensor_product_learn(Tensor grad, Tensor x, Tensor y, Tensor lengths, Tensor table, float start, "
          "float step, Tensor edge_index, int[] paths, float[] couplings, bool[4] wanted) "
          "-> (Tensor grad_x, Tensor grad_y, Tensor grad_lengths, Tensor grad_table)",
          tags);
}

TORCH_LIBRARY_IMPL(equistride, CPU, m) {
    implement_convolution<convolve_cpu, convolve_backward_cpu>(m);
    m.impl("tensor_product_learn", tensor_product_learn_with<learn_cpu>);
}
TORCH_LIBRARY_IMPL(equistride, Meta, m) { implement_convolution<convolve_any, convolve_backward_any, c10::SymInt>(m); }

} // namespace equistride
