// What the files of this folder share: the operators' signatures and the checks of their arguments.
#pragma once
#include "host_device.h"
#include "neighbors/status.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>
#include <tuple>

namespace equistride {

using at::Tensor;

// r_ij = r_j - r_i + shifts @ cell with |r_ij| < cutoff: edge_index [2, E] int64 (receiver i, sender j), shifts [E, 3]
// int32.
std::tuple<Tensor, Tensor> neighbors_cpu(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff);

// The list of neighbors() in tensors of one size: edge_index [2, C] int64, shifts [C, 3] int32, summary [2] int64,
// which is the number of edges found and a Status. Places that are free hold edges between `extra` atoms that follow
// the real ones: each sends to the one before it, the first to the last, without a shift. Where C is too small, there
// are no others.
using PaddedList = std::tuple<Tensor, Tensor, Tensor>;
PaddedList neighbors_padded_cpu(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff,
                                int64_t capacity, int64_t extra);

// The k-th of `count` such edges, as numbers among the extra atoms: sorted, and each has about as many as the others.
struct PaddingEdge {
    int64_t to, from;
};
EQUISTRIDE_HD inline PaddingEdge padding_edge(int64_t k, int64_t count, int64_t extra) {
    const int64_t to = k * extra / count;
    return {to, to + 1 < extra ? to + 1 : 0};
}

Tensor edge_vectors_cpu(const Tensor &positions, const Tensor &cell, const Tensor &edge_index, const Tensor &shifts);
std::tuple<Tensor, Tensor> edge_vectors_backward_cpu(const Tensor &grad, const Tensor &edge_index, const Tensor &shifts,
                                                     int64_t num_atoms);
// -sum r_ij (x) g_ij of vectors and gradients [E, 3]: [3, 3].
Tensor edge_virial_cpu(const Tensor &vectors, const Tensor &gradient);

void check_structure(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff);
// Of a cell whose vectors along the periodic axes are independent and finite, or not.
void check_regular(bool regular, const Tensor &cell);
void check_padding(int64_t capacity, int64_t extra);
void check_vectors(const Tensor &positions, const Tensor &cell, const Tensor &edge_index, const Tensor &shifts);
void check_virial(const Tensor &vectors, const Tensor &gradient);
void check_edge_grad(const Tensor &grad, const Tensor &edge_index, const Tensor &shifts);

} // namespace equistride
