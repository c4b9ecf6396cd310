// What the files of this folder share: the operators' signatures and the checks of their arguments.
//
//     spherical_norm   y = w x / rms(x) + b, of an atom's rows, the mean of the scalars taken off first
//     atom_block       out = z + down(gate(up(norm(z)))) with z = x + messages
// where up and down are linear maps of the channels degree by degree, and the gates a linear map of the scalars.
#pragma once
#include "atom_block/kernels.h"

#include <ATen/core/Tensor.h>
#include <torch/library.h>

namespace equistride {

using at::Tensor;

// All tensors have the type of `x`, float32 or float64.
struct SphericalNorm {
    const Tensor &x;       // [N, (l_max + 1)^2, channels]
    const Tensor &weight;  // [(l_max + 1)^2, channels]
    const Tensor &bias;    // [channels]
    const Tensor &balance; // [(l_max + 1)^2], of each row's squares in the mean
    double eps;
};
Tensor spherical_norm_cpu(const SphericalNorm &in);
Tensor spherical_norm_backward_cpu(const Tensor &grad, const SphericalNorm &in);

struct AtomBlock {
    const Tensor &x, &messages; // [N, (l_max + 1)^2, channels]
    const Tensor &weights;      // as atom_block_pack packs them
    int64_t hidden_channels;
    double eps;

    AtomShape shape() const; // throws where x has no such shape
};
Tensor atom_block_cpu(const AtomBlock &in);
Tensor atom_block_backward_cpu(const Tensor &grad, const AtomBlock &in); // to x, and to the messages

// The operators' arguments one by one, for a device's function of the structures above.
template <auto FUNCTION>
Tensor spherical_norm_with(const Tensor &x, const Tensor &weight, const Tensor &bias, const Tensor &balance,
                           double eps) {
    return FUNCTION({x, weight, bias, balance, eps});
}
template <auto FUNCTION>
Tensor spherical_norm_backward_with(const Tensor &grad, const Tensor &x, const Tensor &weight, const Tensor &bias,
                                    const Tensor &balance, double eps) {
    return FUNCTION(grad, {x, weight, bias, balance, eps});
}
template <auto FUNCTION>
Tensor atom_block_with(const Tensor &x, const Tensor &messages, const Tensor &weights, int64_t hidden_channels,
                       double eps) {
    return FUNCTION({x, messages, weights, hidden_channels, eps});
}
template <auto FUNCTION>
Tensor atom_block_backward_with(const Tensor &grad, const Tensor &x, const Tensor &messages, const Tensor &weights,
                                int64_t hidden_channels, double eps) {
    return FUNCTION(grad, {x, messages, weights, hidden_channels, eps});
}

template <auto NORM, auto NORM_BACKWARD, auto BLOCK, auto BLOCK_BACKWARD> void implement_atom_block(torch::Library &m) {
    m.impl("spherical_norm", spherical_norm_with<NORM>);
    m.impl("spherical_norm_backward", spherical_norm_backward_with<NORM_BACKWARD>);
    m.impl("atom_block", atom_block_with<BLOCK>);
    m.impl("atom_block_backward", atom_block_backward_with<BLOCK_BACKWARD>);
}

// Shapes, types and devices, without reading a tensor.
AtomShape shape_of(const Tensor &x, int64_t hidden_channels);
void check_shape(const char *name, const Tensor &tensor, const Tensor &x, at::IntArrayRef expected);
AtomShape checked_shape(const SphericalNorm &in);
void check_atom_block(const AtomBlock &in, const AtomShape &shape);
void check_grad_of_atoms(const Tensor &grad, const Tensor &x);

} // namespace equistride
