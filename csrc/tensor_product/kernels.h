// The inner loops of the convolution, one set for each instruction set.
//
// All loops run over the channels of one path for a block of edges that share a receiver. The harmonics have been
// contracted with the coupling coefficients before: an edge sees a small matrix M[m1, m3] for each coupling.
#pragma once
#include "instruction_set.h"

#include <cstdint>

namespace equistride {

constexpr int MAX_DEGREE = 4;
constexpr int DEGREES = MAX_DEGREE + 1;
constexpr int EDGE_BLOCK = 16; // edges that are contracted with the couplings together

// Where a coupling coefficient of real spherical harmonics can differ from zero; m < 0 stands for sines.
constexpr bool couples(int l1, int l2, int l3, int m1, int m2, int m3) {
    const int a = m1 < 0 ? -m1 : m1, b = m2 < 0 ? -m2 : m2, c = m3 < 0 ? -m3 : m3;
    return (c == a + b || c == a - b || c == b - a) && ((m1 < 0) + (m2 < 0) + (m3 < 0)) % 2 == (l1 + l2 + l3) % 2;
}

// One nonzero coupling coefficient: matrix[entry] += value * y[harmonic].
template <class Real> struct Term {
    int32_t entry, harmonic;
    Real value;
};

// Pointers are to the first row of the path's block; rows of x and of the weights belong to edges.
template <class Real> struct ForwardStep {
    const Real *const *x;
    const Real *const *weights;
    int64_t x_at, weights_at, out_stride;
    int64_t ahead;             // from a row of weights to one that will be read soon; 0 for none
    int edges, channels, rows; // rows: 2 l1 + 1
    const Real *matrix;        // [entries of the path, EDGE_BLOCK]
    Real *out;                 // [2 l3 + 1, out_stride], added to
};

template <class Real> struct BackwardStep {
    const Real *const *x;
    const Real *const *weights;
    int64_t x_at, weights_at, grad_stride, matrix_stride;
    int64_t ahead; // as in ForwardStep; for rows of grad_weights too
    int edges, channels, rows;
    const Real *matrix;
    const Real *grad;          // [2 l3 + 1, grad_stride], of the receiver
    Real *const *grad_x;       // added to; null where not wanted
    Real *const *grad_weights; // written; null where not wanted
    Real *grad_matrix;         // [edges, matrix_stride], a vector an entry, added to; null where not wanted
};

// A radial table: weights(r) = sum_k basis[k] * rows[k], cubic B-spline coefficients in four neighbouring rows.
template <class Real> struct SplineRow {
    const Real *row;
    int64_t stride;
    Real basis[4], slope[4];
};

template <class Real> struct Kernels {
    using Forward = void (*)(const ForwardStep<Real> &);
    using Backward = void (*)(const BackwardStep<Real> &);

    int lanes;                                  // numbers in a vector
    Forward forward[DEGREES][DEGREES][DEGREES]; // [l1][l2][l3]
    Backward backward[DEGREES][DEGREES][DEGREES];

    // matrix [entries, EDGE_BLOCK] from y [harmonics, EDGE_BLOCK].
    void (*couple)(const Term<Real> *terms, int64_t count, const Real *y, Real *matrix, int64_t entries);
    // Add to sums [harmonics, lanes] what grad_matrix [entries, lanes] gives; terms in the order of the harmonics.
    void (*uncouple)(const Term<Real> *terms, int64_t count, const Real *grad_matrix, Real *sums);
    // out[k] = sum of the lanes of vectors[k]
    void (*add_lanes)(const Real *vectors, int64_t count, Real *out);
    void (*spline)(const SplineRow<Real> &at, int64_t begin, int64_t count, Real *weights);
    // d(sum of grad * weights) / dr
    Real (*spline_slope)(const SplineRow<Real> &at, int64_t count, const Real *grad);
};

template <class Real, InstructionSet> const Kernels<Real> &kernels(); // each compiled for its own
template <class Real> const Kernels<Real> &choose_kernels();          // for this processor

} // namespace equistride
