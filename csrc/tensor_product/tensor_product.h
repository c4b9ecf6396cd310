// What the files of this folder share: the operators' signatures, the list of paths, and the checks of the arguments.
//
// For every path p = (block of x, harmonic degree l2, block of the output):
//     out[t, m3, u] += sum over edges t <- s of weights[e, u] * sum_{m1, m2} C_p[m1, m2, m3] x[s, m1, u] y[e, m2]
// A block of x and of the output is stored as rows m of channels u.
#pragma once
#include "checks.h"

#include <ATen/core/Tensor.h>
#include <array>
#include <torch/library.h>
#include <tuple>
#include <utility>
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

// The operators' arguments. The weights of the edges are a tensor, or splines of their lengths.
struct Convolution {
    const Tensor &x, &y; // [N, columns], [E, columns]
    const Tensor
        &weights; // [E, weights_width]; or the table [K, weights_width] of their cubic B-splines' coefficients,
    const Tensor *lengths; // with the lengths [E]; null without a table
    double start, step;    // row k of the table is centred on start + (k - 1) * step
    const Tensor &edge_index;
    IntArrayRef paths;
    ArrayRef<double> couplings;

    // What has a gradient beside x and y.
    const Tensor &third() const { return lengths == nullptr ? weights : *lengths; }
};
using Wanted = std::array<bool, 3>; // which of these gradients

Tensor convolve_cpu(const Convolution &in, int64_t receivers);
Gradients convolve_backward_cpu(const Tensor &grad, const Convolution &in, Wanted wanted);

// The gradients of a convolution with a table that is learned: those of x, y, lengths and the table.
using Lessons = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using WantedLessons = std::array<bool, 4>;
Lessons learn_cpu(const Tensor &grad, const Convolution &in, WantedLessons wanted);

// The operators' arguments one by one, for functions of the structure above. Size: of sizes that may be symbols.
template <auto FUNCTION, class Size = int64_t>
Tensor tensor_product_with(const Tensor &x, const Tensor &y, const Tensor &weights, const Tensor &edge_index,
                           IntArrayRef paths, ArrayRef<double> couplings, Size num_receivers) {
    return FUNCTION({x, y, weights, nullptr, 0, 1, edge_index, paths, couplings}, std::move(num_receivers));
}
template <auto FUNCTION>
Gradients tensor_product_backward_with(const Tensor &grad, const Tensor &x, const Tensor &y, const Tensor &weights,
                                       const Tensor &edge_index, IntArrayRef paths, ArrayRef<double> couplings,
                                       Wanted wanted) {
    return FUNCTION(grad, {x, y, weights, nullptr, 0, 1, edge_index, paths, couplings}, wanted);
}
template <auto FUNCTION, class Size = int64_t>
Tensor tensor_product_table_with(const Tensor &x, const Tensor &y, const Tensor &lengths, const Tensor &table,
                                 double start, double step, const Tensor &edge_index, IntArrayRef paths,
                                 ArrayRef<double> couplings, Size num_receivers) {
    return FUNCTION({x, y, table, &lengths, start, step, edge_index, paths, couplings}, std::move(num_receivers));
}
template <auto FUNCTION>
Gradients tensor_product_table_backward_with(const Tensor &grad, const Tensor &x, const Tensor &y,
                                             const Tensor &lengths, const Tensor &table, double start, double step,
                                             const Tensor &edge_index, IntArrayRef paths, ArrayRef<double> couplings,
                                             Wanted wanted) {
    return FUNCTION(grad, {x, y, table, &lengths, start, step, edge_index, paths, couplings}, wanted);
}
template <auto FUNCTION>
Lessons tensor_product_learn_with(const Tensor &grad, const Tensor &x, const Tensor &y, const Tensor &lengths,
                                  const Tensor &table, double start, double step, const Tensor &edge_index,
                                  IntArrayRef paths, ArrayRef<double> couplings, WantedLessons wanted) {
    return FUNCTION(grad, {x, y, table, &lengths, start, step, edge_index, paths, couplings}, wanted);
}
template <auto FORWARD, auto BACKWARD, class Size = int64_t> void implement_convolution(torch::Library &m) {
    m.impl("tensor_product", tensor_product_with<FORWARD, Size>);
    m.impl("tensor_product_backward", tensor_product_backward_with<BACKWARD>);
    m.impl("tensor_product_table", tensor_product_table_with<FORWARD, Size>);
    m.impl("tensor_product_table_backward", tensor_product_table_backward_with<BACKWARD>);
}

// Shapes, types and devices, without reading a tensor.
Paths check_convolution(const Convolution &in);
void check_receivers(const c10::SymInt &num_receivers);
void check_grad(const Tensor &grad, const Tensor &x, const Paths &paths);

} // namespace equistride
