// What the files of this folder share: the operators' signatures, the list of paths, and the checks of the arguments.
//
// For every path p = (block of x, harmonic degree l2, block of the output):
//     out[t, m3, u] += sum over edges t <- s of weights[e, u] * sum_{m1, m2} C_p[m1, m2, m3] x[s, m1, u] y[e, m2]
// A block of x and of the output is stored as rows m of channels u.
#pragma once
#include <ATen/core/Tensor.h>
#include <array>
#include <optional>
#include <torch/library.h>
#include <tuple>
#include <vector>

namespace equistride {

using at::ArrayRef;
using at::IntArrayRef;
using at::Tensor;
using Gradients = std::tuple<Tensor, Tensor, Tensor>;

// One path, as the operators' `paths` gives it: these ten integers in this order.
struct Path {
    int64_t l1, l2, l3, channels;
    int64_t x, y, weights; // first column of its block in a row of x, y, weights
    int64_t out;           // first column in a row of the output
    int64_t out_stride;    // columns from one m3 to the next there; in x, `channels`
    int64_t couplings;     // first of its (2 l1 + 1)(2 l2 + 1)(2 l3 + 1) coefficients in `couplings`
};
constexpr size_t PATH_FIELDS = sizeof(Path) / sizeof(int64_t);

// The paths, and the widths that they imply; throws where they do not fit rows of x and y.
struct Paths {
    std::vector<Path> all;
    int64_t weights_width = 0, out_width = 0;
    Paths(IntArrayRef paths, ArrayRef<double> couplings, const c10::SymInt &x_width, const c10::SymInt &y_width);
};

// B-spline coefficients of the weights: row k is centred on start + (k - 1) * step.
struct RadialTable {
    const Tensor &lengths; // [E]
    const Tensor &table;   // [K, weights_width]
    double start, step;
};

Tensor tensor_product_cpu(const Tensor &x, const Tensor &y, const Tensor &weights, const Tensor &edge_index,
                          IntArrayRef paths, ArrayRef<double> couplings, int64_t num_receivers);
Gradients tensor_product_backward_cpu(const Tensor &grad, const Tensor &x, const Tensor &y, const Tensor &weights,
                                      const Tensor &edge_index, IntArrayRef paths, ArrayRef<double> couplings,
                                      std::array<bool, 3> wanted);

Tensor tensor_product_table_cpu(const Tensor &x, const Tensor &y, const Tensor &lengths, const Tensor &table,
                                double start, double step, const Tensor &edge_index, IntArrayRef paths,
                                ArrayRef<double> couplings, int64_t num_receivers);
Gradients tensor_product_table_backward_cpu(const Tensor &grad, const Tensor &x, const Tensor &y, const Tensor &lengths,
                                            const Tensor &table, double start, double step, const Tensor &edge_index,
                                            IntArrayRef paths, ArrayRef<double> couplings, std::array<bool, 3> wanted);

// Shapes, types and devices, without reading a tensor.
void check_rows(const Tensor &x, const Tensor &y, const Tensor &edge_index);
void check_weights(const Tensor &x, const Tensor &weights, const Tensor &edge_index, const Paths &paths);
void check_table(const Tensor &x, const RadialTable &radial, const Tensor &edge_index, const Paths &paths);
void check_receivers(const c10::SymInt &num_receivers);
void check_grad(const Tensor &grad, const Tensor &x, const Paths &paths);

} // namespace equistride
