// The operators' names and types, their shapes, and which file holds each device's kernel.
#include "checks.h"
#include "symmetric_contraction/symmetric_contraction.h"

namespace equistride {

namespace {

Tensor symmetric_contraction_any(const Tensor &x, const Tensor &table, const Tensor &species, const Tensor &terms,
                                 int64_t outputs) {
    check_contraction(x, table, species, terms, outputs);
    return at::empty_symint({x.sym_size(0), outputs * table.sym_size(2)}, x.options());
}

ContractionGradients symmetric_contraction_backward_any(const Tensor &grad, const Tensor &x, const Tensor &table,
                                                        const Tensor &species, const Tensor &terms,
                                                        std::array<bool, 2> wanted) {
    check_contraction(x, table, species, terms, 1);
    check_contraction_grad(grad, x, table);
    return {memory_like(x, wanted[0]), memory_like(table, wanted[1])};
}

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
    m.def("symmetric_contraction(Tensor x, Tensor table, Tensor species, Tensor terms, int outputs) -> Tensor", tags);
    m.def("symmetric_contraction_backward(Tensor grad, Tensor x, Tensor table, Tensor species, Tensor terms, "
          "bool[2] wanted) -> (Tensor grad_x, Tensor grad_table)",
          tags);
}

TORCH_LIBRARY_IMPL(equistride, CPU, m) {
    m.impl("symmetric_contraction", symmetric_contraction_cpu);
    m.impl("symmetric_contraction_backward", symmetric_contraction_backward_cpu);
}

TORCH_LIBRARY_IMPL(equistride, Meta, m) {
    m.impl("symmetric_contraction", symmetric_contraction_any);
    m.impl("symmetric_contraction_backward", symmetric_contraction_backward_any);
}

} // namespace equistride
