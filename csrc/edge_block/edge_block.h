// What the files of this folder share: the operators' signatures and the checks of their arguments.
//
// With D_e the rotation into the frame of bond e (rows |m| <= m_max), env_e a factor and s, t its sender and receiver:
//     out[t] = sum over edges t <- s of env_e D_e^T second(gate(first(weights_e * D_e [x_s, x_t])))
// where first and second are linear maps that commute with rotations about the bond (arXiv 2302.03655) and
// weights_e = radial(hidden_e), a linear layer.
#pragma once
#include "edge_block/kernels.h"

#include <ATen/core/Tensor.h>
#include <array>
#include <torch/library.h>
#include <tuple>

namespace equistride {

using at::Tensor;

// All tensors but `edge_index` (int64) have the type of `x`, float32 or float64.
struct EdgeBlock {
    const Tensor &x;          // [N, (l_max + 1)^2, channels]
    const Tensor &vectors;    // [E, 3] sender - receiver, A
    const Tensor &frames;     // [E, sum of (2l + 1)^2 for 1 <= l <= l_max], what bond_frames gives for the vectors
    const Tensor &envelope;   // [E]
    const Tensor &hidden;     // [E, R], input of the last radial layer
    const Tensor &edge_index; // [2, E] receivers, senders; sorted by receiver
    const Tensor &weights;    // [weight_count]: all matrices of the block, as equistride.nn.edge_block packs them
    int64_t l_max, m_max, hidden_channels;
    bool mirror;

    Shape shape() const; // throws where l_max, m_max or the channels are out of range
};
using EdgeGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>; // to x, vectors, envelope, hidden

// D^l of every bond for l = 1..l_max, rows and columns m = -l..l. No gradient: the operators that use the frames give
// it to the vectors.
Tensor bond_frames_cpu(const Tensor &vectors, int64_t l_max);

// The block, and the state [edges kept, state] of the first edges that fit into `keep` bytes, for the backward.
std::tuple<Tensor, Tensor> edge_block_cpu(const EdgeBlock &in, int64_t keep);
EdgeGradients edge_block_backward_cpu(const Tensor &grad, const EdgeBlock &in, const Tensor &kept);

// The same through torch's dispatcher, where it is seen by who counts work.
std::tuple<Tensor, Tensor> call_block(const EdgeBlock &in, int64_t keep);
EdgeGradients call_block_backward(const Tensor &grad, const EdgeBlock &in, const Tensor &kept);

// Splines of length, a table for each kind of pair: [E, columns].
struct RadialSplines {
    const Tensor &lengths; // [E]
    const Tensor &pair;    // [E] int64
    const Tensor &tables;  // [pairs, intervals, terms, columns]: of 1, t, t^2, ..., where t = 0..1 within an interval
    double start, step;
};
Tensor radial_splines_cpu(const RadialSplines &in);
Tensor radial_splines_backward_cpu(const Tensor &grad, const RadialSplines &in);

// The operators' arguments one by one, for a device's function of the structures above.
template <auto FUNCTION>
std::tuple<Tensor, Tensor> edge_block_with(const Tensor &x, const Tensor &vectors, const Tensor &frames,
                                           const Tensor &envelope, const Tensor &hidden, const Tensor &edge_index,
                                           const Tensor &weights, int64_t l_max, int64_t m_max, int64_t hidden_channels,
                                           bool mirror, int64_t keep) {
    return FUNCTION({x, vectors, frames, envelope, hidden, edge_index, weights, l_max, m_max, hidden_channels, mirror},
                    keep);
}
template <auto FUNCTION>
EdgeGradients edge_block_backward_with(const Tensor &grad, const Tensor &x, const Tensor &vectors, const Tensor &frames,
                                       const Tensor &envelope, const Tensor &hidden, const Tensor &edge_index,
                                       const Tensor &weights, const Tensor &kept, int64_t l_max, int64_t m_max,
                                       int64_t hidden_channels, bool mirror) {
    return FUNCTION(
        grad, {x, vectors, frames, envelope, hidden, edge_index, weights, l_max, m_max, hidden_channels, mirror}, kept);
}
template <auto FUNCTION>
Tensor radial_splines_with(const Tensor &lengths, const Tensor &pair, const Tensor &tables, double start, double step) {
    return FUNCTION({lengths, pair, tables, start, step});
}
template <auto FUNCTION>
Tensor radial_splines_backward_with(const Tensor &grad, const Tensor &lengths, const Tensor &pair, const Tensor &tables,
                                    double start, double step) {
    return FUNCTION(grad, {lengths, pair, tables, start, step});
}

template <auto FORWARD, auto BACKWARD> void implement_edge_block(torch::Library &m) {
    m.impl("edge_block", edge_block_with<FORWARD>);
    m.impl("edge_block_backward", edge_block_backward_with<BACKWARD>);
}
template <auto FORWARD, auto BACKWARD> void implement_splines(torch::Library &m) {
    m.impl("radial_splines", radial_splines_with<FORWARD>);
    m.impl("radial_splines_backward", radial_splines_backward_with<BACKWARD>);
}

int64_t packed_size(const Shape &shape, int64_t radial_channels); // numbers in `weights`
c10::SymInt kept_edges(const Shape &shape, const Tensor &x, const c10::SymInt &edges, int64_t keep);

// Shapes, types and devices, without reading a tensor.
void check_bonds(const Tensor &vectors, int64_t l_max);
void check_block(const EdgeBlock &in, const Shape &shape);
void check_block_grad(const Tensor &grad, const EdgeBlock &in, const Tensor &kept, const Shape &shape);
void check_splines(const RadialSplines &in);
void check_splines_grad(const Tensor &grad, const RadialSplines &in);

} // namespace equistride
