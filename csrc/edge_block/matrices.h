// Where the matrices of a block lie in the operators' `weights`, as equistride.nn.edge_block packs them. Each is stored
// as [panels of PANEL columns, rows, PANEL], with zeros beyond its last column.
#pragma once
#include "edge_block/panels.h"

#include <ATen/core/Tensor.h>

namespace equistride {

// The matrices of one linear map that commutes with rotations about the bond: one for m = 0, and for each m > 0 one,
// W1 (mirror), or three, W1, -(W1 + W2) and W2 - W1.
template <class Real> struct Layer {
    const Real *scalar, *bias = nullptr, *orders[MAX_L + 1][3] = {};
    int64_t in, out, gates_in, gates_out; // channels a row; scalars before the rows of m = 0
};

// All matrices, read off one after the other.
template <class Real> struct Matrices {
    const Real *radial, *radial_bias, *radial_back;
    int64_t radial_channels;
    Layer<Real> first, second, second_back, first_back;

    Matrices(const Shape &shape, const at::Tensor &packed, int64_t channels)
        : radial_channels(channels), next_(packed.const_data_ptr<Real>()) {
        const int64_t in = 2 * shape.channels, mid = shape.hidden, out = shape.channels;
        radial = take(channels, shape.weights);
        radial_bias = take(1, shape.weights);
        first = layer(shape, {.scalar = nullptr, .in = in, .out = mid, .gates_in = 0, .gates_out = shape.gates}, true);
        second = layer(shape, {.scalar = nullptr, .in = mid, .out = out, .gates_in = 0, .gates_out = 0}, true);
        second_back = layer(shape, {.scalar = nullptr, .in = out, .out = mid, .gates_in = 0, .gates_out = 0}, false);
        first_back =
            layer(shape, {.scalar = nullptr, .in = mid, .out = in, .gates_in = shape.gates, .gates_out = 0}, false);
        radial_back = take(shape.weights, channels);
    }

private:
    const Real *next_;

    const Real *take(int64_t rows, int64_t columns) {
        const Real *here = next_;
        next_ += rows * padded(columns);
        return here;
    }
    Layer<Real> layer(const Shape &shape, Layer<Real> made, bool bias) {
        const int64_t n = shape.degrees[0];
        made.scalar = take(made.gates_in + n * made.in, made.gates_out + n * made.out);
        if (bias)
            made.bias = take(1, made.gates_out + n * made.out);
        for (int m = 1; m <= shape.m_max; ++m)
            for (int k = 0; k < (shape.mirror ? 1 : 3); ++k)
                made.orders[m][k] = take(shape.degrees[m] * made.in, shape.degrees[m] * made.out);
        return made;
    }
};

} // namespace equistride
