// The operators' names and types, their shapes, and which file holds each device's kernel.
#include "tensor_product/tensor_product.h"

#include <ATen/ops/empty.h>

namespace equistride {

namespace {

Tensor tensor_product_any(const Tensor &x, const Tensor &y, const Tensor &weights, const Tensor &edge_index,
                          IntArrayRef paths, ArrayRef<double> couplings, c10::SymInt num_receivers) {
    check_rows(x, y, edge_index);
    const Paths all(paths, couplings, x.sym_size(1), y.sym_size(1));
    check_weights(x, weights, edge_index, all);
    return at::empty_symint({num_receivers, all.out_width}, x.options());
}

Tensor tensor_product_table_any(const Tensor &x, const Tensor &y, const Tensor &lengths, const Tensor &table,
                                double start, double step, const Tensor &edge_index, IntArrayRef paths,
                                ArrayRef<double> couplings, c10::SymInt num_receivers) {
    check_rows(x, y, edge_index);
    const Paths all(paths, couplings, x.sym_size(1), y.sym_size(1));
    check_table(x, {lengths, table, start, step}, edge_index, all);
    return at::empty_symint({num_receivers, all.out_width}, x.options());
}

// A gradient that is not wanted is an empty tensor.
Tensor grad_like(const Tensor &tensor, bool wanted) {
    return wanted ? at::empty_symint(tensor.sym_sizes(), tensor.options()) : at::empty({0}, tensor.options());
}

Gradients tensor_product_backward_any(const Tensor &grad, const Tensor &x, const Tensor &y, const Tensor &weights,
                                      const Tensor &edge_index, IntArrayRef paths, ArrayRef<double> couplings,
                                      std::array<bool, 3> wanted) {
    check_rows(x, y, edge_index);
    const Paths all(paths, couplings, x.sym_size(1), y.sym_size(1));
    check_weights(x, weights, edge_index, all);
    check_grad(grad, x, all);
    return {grad_like(x, wanted[0]), grad_like(y, wanted[1]), grad_like(weights, wanted[2])};
}

Gradients tensor_product_table_backward_any(const Tensor &grad, const Tensor &x, const Tensor &y, const Tensor &lengths,
                                            const Tensor &table, double start, double step, const Tensor &edge_index,
                                            IntArrayRef paths, ArrayRef<double> couplings, std::array<bool, 3> wanted) {
    check_rows(x, y, edge_index);
    const Paths all(paths, couplings, x.sym_size(1), y.sym_size(1));
    check_table(x, {lengths, table, start, step}, edge_index, all);
    check_grad(grad, x, all);
    return {grad_like(x, wanted[0]), grad_like(y, wanted[1]), grad_like(lengths, wanted[2])};
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
}

TORCH_LIBRARY_IMPL(equistride, CPU, m) {
    m.impl("tensor_product", tensor_product_cpu);
    m.impl("tensor_product_backward", tensor_product_backward_cpu);
    m.impl("tensor_product_table", tensor_product_table_cpu);
    m.impl("tensor_product_table_backward", tensor_product_table_backward_cpu);
}

TORCH_LIBRARY_IMPL(equistride, Meta, m) {
    m.impl("tensor_product", tensor_product_any);
    m.impl("tensor_product_backward", tensor_product_backward_any);
    m.impl("tensor_product_table", tensor_product_table_any);
    m.impl("tensor_product_table_backward", tensor_product_table_backward_any);
}

} // namespace equistride
