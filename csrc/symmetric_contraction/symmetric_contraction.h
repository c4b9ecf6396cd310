// What the files of this folder share: the operators' signatures and the checks of their arguments.
//
// The product basis of MACE (Batatia et al., arXiv 2206.07697), channel by channel, with the symmetrised monomials
// written out:
//     out[n, o, c] = sum over terms t = (o, k, i1, i2, i3, i4) of table[species[n], k, c] x[n, i1, c] x[n, i2, c] ...
// A row of x is `inputs` rows of channels, a row of the output `outputs` rows of channels.
#pragma once
#include <ATen/core/Tensor.h>
#include <array>
#include <torch/library.h>
#include <tuple>

namespace equistride {

using at::Tensor;
using ContractionGradients = std::tuple<Tensor, Tensor>; // of x and of the table

// One term, as a row of `terms` gives it, int32. Terms that follow one another and share all but their last factor are
// summed together.
struct Monomial {
    int32_t out, row;   // row of the table; -1: the term counts nothing
    int32_t factors[4]; // rows of x; -1 after the last
};
constexpr int64_t MONOMIAL_FIELDS = sizeof(Monomial) / sizeof(int32_t), MAX_FACTORS = 4;

Tensor symmetric_contraction_cpu(const Tensor &x, const Tensor &table, const Tensor &species, const Tensor &terms,
                                 int64_t outputs);
ContractionGradients symmetric_contraction_backward_cpu(const Tensor &grad, const Tensor &x, const Tensor &table,
                                                        const Tensor &species, const Tensor &terms,
                                                        std::array<bool, 2> wanted);

// Shapes, types and devices, without reading a tensor.
void check_contraction(const Tensor &x, const Tensor &table, const Tensor &species, const Tensor &terms,
                       int64_t outputs);
void check_contraction_grad(const Tensor &grad, const Tensor &x, const Tensor &table);

} // namespace equistride
