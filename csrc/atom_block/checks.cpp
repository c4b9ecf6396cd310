// The checks of the operators' arguments, without reading a tensor.
#include "checks.h"
#include "atom_block/atom_block.h"
#include "edge_block/panels.h"

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

namespace {

int64_t packed_size(const AtomShape &shape) {
    const int64_t c = shape.channels, h = shape.hidden, first = shape.gates + h;
    const auto both = [](int64_t rows, int64_t columns) { return rows * padded(columns) + columns * padded(rows); };
    return shape.size * c + c + shape.size + both(c, first) + shape.l_max * both(c, h) + padded(first) +
           (shape.l_max + 1) * both(h, c) + padded(c);
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

} // namespace equistride
