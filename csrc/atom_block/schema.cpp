// The operators' names and types, their shapes, and the layout of a block's weights.
#include "atom_block/atom_block.h"
#include "checks.h"
#include "edge_block/panels.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

namespace equistride {

namespace {

Tensor like_x(const SphericalNorm &in) {
    checked_shape(in);
    return memory_like(in.x, true);
}
Tensor like_x_backward(const Tensor &grad, const SphericalNorm &in) {
    check_grad_of_atoms(grad, in.x);
    return like_x(in);
}
Tensor block_like_x(const AtomBlock &in) {
    check_atom_block(in, in.shape());
    return memory_like(in.x, true);
}
Tensor block_like_x_backward(const Tensor &grad, const AtomBlock &in) {
    check_grad_of_atoms(grad, in.x);
    return block_like_x(in);
}

// What the kernels read, in their order: atom_block/weights.h.
Tensor atom_block_pack(const Tensor &norm_weight, const Tensor &norm_bias, const Tensor &balance,
                       const Tensor &gates_weight, const Tensor &gates_bias, const Tensor &up_weight,
                       const Tensor &up_bias, const Tensor &down_weight, const Tensor &down_bias) {
    const int64_t degrees = up_weight.size(0);
    const c10::AutoGradMode frozen(false);
    std::vector<Tensor> parts, back;
    const auto layer = [&](const Tensor &weight, const Tensor &first, const Tensor &bias) {
        for (int64_t l = 0; l < degrees; ++l) {
            const Tensor matrix = l == 0 ? first : weight[l];
            parts.push_back(matrix.t());
            back.push_back(matrix);
        }
        parts.push_back(bias.unsqueeze(0));
    };
    layer(up_weight, at::cat({gates_weight, up_weight[0]}), at::cat({gates_bias, up_bias}));
    layer(down_weight, down_weight[0], down_bias);
    parts.insert(parts.end(), back.begin(), back.end());
    return at::cat({in_panels(parts), norm_weight.flatten(), norm_bias, balance.flatten()});
}

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
    m.def("spherical_norm(Tensor x, Tensor weight, Tensor bias, Tensor balance, float eps) -> Tensor", tags);
    m.def("spherical_norm_backward(Tensor grad, Tensor x, Tensor weight, Tensor bias, Tensor balance, float eps) "
          "-> Tensor",
          tags);
    m.def("atom_block(Tensor x, Tensor messages, Tensor weights, int hidden_channels, float eps) -> Tensor", tags);
    m.def("atom_block_backward(Tensor grad, Tensor x, Tensor messages, Tensor weights, int hidden_channels, float eps) "
          "-> Tensor",
          tags);
    m.def("atom_block_pack(Tensor norm_weight, Tensor norm_bias, Tensor balance, Tensor gates_weight, Tensor "
          "gates_bias, Tensor up_weight, Tensor up_bias, Tensor down_weight, Tensor down_bias) -> Tensor",
          atom_block_pack);
}

TORCH_LIBRARY_IMPL(equistride, CPU, m) {
    implement_atom_block<spherical_norm_cpu, spherical_norm_backward_cpu, atom_block_cpu, atom_block_backward_cpu>(m);
}

TORCH_LIBRARY_IMPL(equistride, Meta, m) {
    implement_atom_block<like_x, like_x_backward, block_like_x, block_like_x_backward>(m);
}

} // namespace equistride
