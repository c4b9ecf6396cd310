// What the files of this folder share: the operators' signatures and the checks of their arguments.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>
#include <tuple>

namespace equistride {

using at::Tensor;

// r_ij = r_j - r_i + shifts @ cell with |r_ij| < cutoff: edge_index [2, E] int64 (receiver i, sender j), shifts [E, 3]
// int32.
std::tuple<Tensor, Tensor> neighbors_cpu(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff);

// Rows of fixed length: neighbors [N, C] and shifts [N, C, 3] int32, counts [N] int32, overflow [1] int32.
using FixedList = std::tuple<Tensor, Tensor, Tensor, Tensor>;
FixedList neighbors_fixed_cpu(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff,
                              int64_t row_capacity);

Tensor edge_vectors_cpu(const Tensor &positions, const Tensor &cell, const Tensor &edge_index, const Tensor &shifts);
std::tuple<Tensor, Tensor> edge_vectors_backward_cpu(const Tensor &grad, const Tensor &edge_index, const Tensor &shifts,
                                                     int64_t num_atoms);

Tensor moved_beyond_cpu(const Tensor &positions, const Tensor &reference_positions, const Tensor &cell,
                        const Tensor &reference_cell, double limit, std::optional<double> cutoff);

// Written in neighbors of an atom that has fewer than the capacity.
constexpr int32_t NO_NEIGHBOR = -1;

void check_structure(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff);
void check_capacity(int64_t row_capacity);
void check_edges(const Tensor &like, const Tensor &edge_index, const Tensor &shifts);
void check_vectors(const Tensor &positions, const Tensor &cell, const Tensor &edge_index, const Tensor &shifts);
void check_edge_grad(const Tensor &grad, const Tensor &edge_index, const Tensor &shifts);
void check_motion(const Tensor &positions, const Tensor &reference_positions, const Tensor &cell,
                  const Tensor &reference_cell, double limit, std::optional<double> cutoff);

} // namespace equistride
