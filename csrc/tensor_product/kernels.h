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
constexpr int GRAD_BLOCK = 8;  // edges whose gradients stay in cache together

constexpr int LOOPS_DEGREE = 3; // paths up to it have loops of their own, which skip what is zero

// Where a coupling coefficient of real spherical harmonics can differ from zero; m < 0 stands for sines.
constexpr bool couples(int l1, int l2, int l3, int m1, int m2, int m3) {
    const int a = m1 < 0 ? -m1 : m1, b = m2 < 0 ? -m2 : m2, c = m3 < 0 ? -m3 : m3;
    return (c == a + b || c == a - b || c == b - a) && ((m1 < 0) + (m2 < 0) + (m3 < 0)) % 2 == (l1 + l2 + l3) % 2;
}

// Whether for m1 and m2 there is an m3 that couples.
constexpr bool turns(int l1, int l2, int l3, int m1, int m2) {
    for (int m3 = -l3; m3 <= l3; ++m3)
        if (couples(l1, l2, l3, m1, m2, m3))
            return true;
    return false;
}

// One nonzero coupling coefficient: matrix[entry] += value * y[harmonic].
template <class Real> struct Term {
    int32_t entry, harmonic;
    Real value;
};

// A radial table: weights(r) = sum_k basis[k] * rows[k], cubic B-spline coefficients in four neighbouring rows, and
// weights'(r) = sum_k slope[k] * (rows[k + 1] - rows[k]).
template <class Real> struct SplineRow {
    const Real *row;
    int64_t stride;
    Real basis[4], slope[3];
};

// Pointers are to the first row of the path's block; rows of x and of the weights belong to edges.
template <class Real> struct ForwardStep {
    const Real *const *x;
    const Real *const *weights;     // of `forward`
    const SplineRow<Real> *splines; // of `forward_table`
    int64_t x_at, weights_at, out_stride;
    int64_t ahead;             // from a row of weights to one that will be read soon; 0 for none
    int edges, channels, rows; // rows: 2 l1 + 1
    bool fresh;                // out is written, not added to
    const Real *matrix;        // [entries of the path, EDGE_BLOCK]
    Real *out;                 // [2 l3 + 1, out_stride]
};

// One product of the receiver's gradient with a path's couplings: turned[entry] = sum of value[k] * grad[m3[k]].
template <class Real> struct TurnTerm {
    int32_t entry, m3[2];
    Real value[2];
};

// One path and up to GRAD_BLOCK edges of one receiver, whose gradient has been contracted with the couplings before:
// turned[m1, m2, u] = sum over m3 of C[m1, m2, m3] grad[m3, u].
template <class Real> struct BackwardStep {
    const Real *const *x;
    const Real *const *y;
    const Real *const *weights;
    const Real *const *slopes;             // of the weights' splines; null without a table
    int64_t x_at, y_at, weights_at, ahead; // as in ForwardStep; for rows of grad_weights too
    int edges, channels, l1, l2;
    bool fresh;                // grad_x is written, not added to
    const Real *turned;        // [2 l1 + 1, 2 l2 + 1, channels]
    Real *grad_x;              // [edges, 2 l1 + 1, channels]; null where not wanted
    Real *const *grad_weights; // written; null where not wanted
    Real *sums; // [edges, sums_stride], vectors, added to: those to y from sums_at on, and one to the length
    int64_t sums_stride, sums_at, sums_length;
};

template <class Real> struct Kernels {
    using Forward = void (*)(const ForwardStep<Real> &);
    using Backward = void (*)(const BackwardStep<Real> &);

    int lanes;                                        // numbers in a vector
    Forward forward[DEGREES][DEGREES][DEGREES];       // [l1][l2][l3]
    Forward forward_table[DEGREES][DEGREES][DEGREES]; // with weights from a table
    Backward backward[DEGREES][DEGREES][DEGREES];

    // matrix [entries, EDGE_BLOCK] from y [harmonics, EDGE_BLOCK].
    void (*couple)(const Term<Real> *terms, int64_t count, const Real *y, Real *matrix, int64_t entries);
    // turned [entries, channels] from a receiver's gradient [2 l3 + 1, stride]; what no term names is left alone.
    void (*turn)(const TurnTerm<Real> *terms, int64_t count, const Real *grad, int64_t stride, int channels,
                 Real *turned);
    // out[k] = sum of the lanes of vectors[k]
    void (*add_lanes)(const Real *vectors, int64_t count, Real *out);
    void (*add)(const Real *from, int64_t count, Real *to);
    // Weights of so many columns, and their derivatives by the length.
    void (*spline_slope)(const SplineRow<Real> &at, int64_t begin, int64_t count, Real *weights, Real *slopes);
    // What gradients of these weights are to the four rows from `row` on, of a table of gradients; added to them.
    void (*add_to_spline)(const Real *from, const SplineRow<Real> &at, int64_t begin, int64_t count, Real *row);
};

template <class Real, InstructionSet> const Kernels<Real> &kernels(); // each compiled for its own
template <class Real> const Kernels<Real> &choose_kernels();          // for this processor

} // namespace equistride
