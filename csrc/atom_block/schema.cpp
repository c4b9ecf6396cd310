// The operators' names and types, the checks of their arguments, their shapes, and the layout of a block's weights.
#include "atom_block/atom_block.h"
#include "checks.h"
#include "edge_block/panels.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

namespace equistride {

constexpr int64_t MOST_DEGREES = 32;

AtomShape::AtomShape(int64_t size, int64_t channels, int64_t hidden)
    : l_max(0), channels(channels), hidden(hidden), size(size), gates(0) {
    while (l_max < MOST_DEGREES && (l_max + 1) * (l_max + 1) < size)
        ++l_max;
    const auto sane = [](int64_t count) { return count > 0 && count <= MOST_CHANNELS; };
    TORCH_CHECK_VALUE((l_max + 1) * (l_max + 1) == size && sane(channels) && sane(hidden),
                      "x must have (l_max + 1)^2 rows, with l_max at most ", MOST_DEGREES,
                      ", and channels and hidden_channels must be above 0 and at most ", MOST_CHANNELS, "; found ",
                      size, " rows of ", channels, " channels and ", hidden, " hidden channels");
    gates = l_max * hidden;
}

namespace {

AtomShape shape_of(const Tensor &x, int64_t hidden) {
    check_real("x", x);
    TORCH_CHECK_VALUE(x.dim() == 3, "x must have shape [N, (l_max + 1)^2, channels]; found ", x.sym_sizes());
    return {x.sym_size(1).guard_int(__FILE__, __LINE__), x.sym_size(2).guard_int(__FILE__, __LINE__), hidden};
}

void check_shape(const char *name, const Tensor &tensor, const Tensor &x, at::IntArrayRef expected) {
    check_like(name, tensor, "x", x);
    TORCH_CHECK_VALUE(tensor.sym_sizes() == c10::fromIntArrayRefSlow(expected), name, " must have shape ", expected,
                      "; found ", tensor.sym_sizes());
}

int64_t packed_size(const AtomShape &shape) {
    const int64_t c = shape.channels, h = shape.hidden, first = shape.gates + h;
    const auto both = [](int64_t rows, int64_t columns) { return rows * padded(columns) + columns * padded(rows); };
    return shape.size * c + c + shape.size + both(c, first) + shape.l_max * both(c, h) + padded(first) +
           (shape.l_max + 1) * both(h, c) + padded(c);
}

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

// What the kernels read, in their order: atom_block/cpu.cpp.
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
    return at::cat({norm_weight.flatten(), norm_bias, balance.flatten(), in_panels(parts)});
}

} // namespace

AtomShape AtomBlock::shape() const { return shape_of(x, hidden_channels); }

AtomShape checked_shape(const SphericalNorm &in) {
    const AtomShape shape = shape_of(in.x, 1);
    check_shape("weight", in.weight, in.x, {shape.size, shape.channels});
    check_shape("bias", in.bias, in.x, {shape.channels});
    check_shape("balance", in.balance, in.x, {shape.size});
    return shape;
}

void check_atom_block(const AtomBlock &in, const AtomShape &shape) {
    check_like("messages", in.messages, "x", in.x);
    TORCH_CHECK_VALUE(in.messages.sym_sizes() == in.x.sym_sizes(), "messages must have the shape of x, ",
                      in.x.sym_sizes(), "; found ", in.messages.sym_sizes());
    check_shape("weights", in.weights, in.x, {packed_size(shape)});
}

void check_grad_of_atoms(const Tensor &grad, const Tensor &x) {
    check_like("grad", grad, "x", x);
    TORCH_CHECK_VALUE(grad.sym_sizes() == x.sym_sizes(), "grad must have the shape of x, ", x.sym_sizes(), "; found ",
                      grad.sym_sizes());
}

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
    m.impl("spherical_norm", spherical_norm_with<spherical_norm_cpu>);
    m.impl("spherical_norm_backward", spherical_norm_backward_with<spherical_norm_backward_cpu>);
    m.impl("atom_block", atom_block_with<atom_block_cpu>);
    m.impl("atom_block_backward", atom_block_backward_with<atom_block_backward_cpu>);
}

TORCH_LIBRARY_IMPL(equistride, Meta, m) {
    m.impl("spherical_norm", spherical_norm_with<like_x>);
    m.impl("spherical_norm_backward", spherical_norm_backward_with<like_x_backward>);
    m.impl("atom_block", atom_block_with<block_like_x>);
    m.impl("atom_block_backward", atom_block_backward_with<block_like_x_backward>);
}

} // namespace equistride
