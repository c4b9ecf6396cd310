// The inner loops of the edge block, one set for each instruction set.
//
// Rows of an edge in its bond frame are m-major: m = 0 with l = 0..l_max, then for each m > 0 the rows +m
// (l = m..l_max) and the rows -m. Features of an atom are l-major. Each row holds channels.
#pragma once
#include "instruction_set.h"

#include <cstdint>

namespace equistride {

constexpr int MAX_L = 4;
constexpr int64_t MOST_CHANNELS = 1 << 16; // so that no size of a block overflows
constexpr int64_t PANEL = 32;              // columns of a matrix that are stored together

// Sizes of a block, and where its rows lie. Plain numbers: an inline function could be linked with code that another
// file compiled for another instruction set.
struct Shape {
    int l_max, m_max;
    int64_t channels, hidden; // of the atoms, and between the two layers
    bool mirror;

    int degrees[MAX_L + 1] = {};       // rows of order +m
    int first[MAX_L + 1] = {};         // first row of order +m; -m follows
    int frame[MAX_L + 1] = {};         // where D^l starts
    int first_weight[MAX_L + 1] = {};  // first row of weights of order m
    int row[MAX_L + 1][2 * MAX_L + 1]; // [l][m + l]; -1 above m_max
    int rows = 0, size = 0, frame_size = 0;
    int64_t gates = 0;               // numbers an edge: gates,
    int64_t inner = 0;               // all between the layers,
    int64_t state = 0;               // all that the backward needs,
    int64_t scaled = 0, weights = 0; // rows before the first layer, radial weights

    Shape(int64_t l_max, int64_t m_max, int64_t channels, int64_t hidden, bool mirror);
};

// Where generators of rotations about x, y, z of the real harmonics of degree l have entries J[row, column], row <
// column; J[column, row] = -J[row, column]. Polar axis y, order m = row - l. For compilers to evaluate.
struct GeneratorEntries {
    int count = 0;
    int row[2 * MAX_L] = {}, column[2 * MAX_L] = {};
};
constexpr GeneratorEntries generator_entries(int l, int axis) {
    GeneratorEntries found;
    for (int m = -l; m <= l; ++m)
        for (int n = m + 1; n <= l; ++n) {
            const bool here = axis == 0   ? n == m + 1 && n != 0
                              : axis == 1 ? n == -m
                                          : m < 0 && n >= 0 && (m + n == 1 || m + n == -1);
            if (here) {
                found.row[found.count] = m + l;
                found.column[found.count++] = n + l;
            }
        }
    return found;
}
template <class Real> struct Generator {
    Real value[2 * MAX_L] = {}; // of these entries
};
template <class Real> struct Generators {
    Generator<Real> of[MAX_L + 1][3];
};

// c [rows, n] = a [rows, k] b, where b is stored as [panels of PANEL columns, k, PANEL].
template <class Real> struct Multiply {
    const Real *a;
    int64_t lda, rows;
    const Real *b;
    int64_t k, n;
    Real *c;
    int64_t ldc;
    const Real *bias = nullptr; // [n], where the sum starts
    bool add = false;           // or at c
    Real *also = nullptr;       // second place for the result, as c
};

// What the loops of one edge read and write.
template <class Real> struct EdgeIn {
    const Real *frame, *sender, *receiver; // D^l for l > 0; features of both atoms
    const Real *weights;                   // [weight_rows, 2 channels]
};
template <class Real> struct EdgeGradient {
    Real *sender, *receiver, *weights; // written or added to, added to, written
    Real *torque;                      // [3], added to
    bool add_sender;
};

// Columns as polynomials: rows [terms, columns] are of t^0, t^1, ...
template <class Real> struct Polynomial {
    const Real *rows;
    int64_t terms, columns;
};

template <class Real> struct EdgeKernels {
    void (*multiply)(const Multiply<Real> &);
    void (*add)(const Real *a, const Real *b, int64_t count, Real *out);
    // Rows [rows, 2 channels] in the bond frame, times the weights.
    void (*rotate)(const Shape &, const EdgeIn<Real> &, Real *out);
    // out [size, channels] += factor * D^T z
    void (*rotate_back)(const Shape &, const Real *frame, Real factor, const Real *z, Real *out);
    // gates and rows [inner] to rows [rows, hidden]; leaves the sigmoids of the gates
    void (*gate)(const Shape &, Real *inner, Real *out);

    // The same backwards. `grad` [size, channels] belongs to the receiver; writes on_z = factor * D grad, adds to the
    // torque, and returns the gradient to the factor.
    Real (*unrotate_back)(const Shape &, const Generators<Real> &, const Real *frame, Real factor, const Real *grad,
                          const Real *z, Real *on_z, Real *torque);
    void (*ungate)(const Shape &, const Real *inner, const Real *grad, Real *on_inner);
    void (*unrotate)(const Shape &, const Generators<Real> &, const EdgeIn<Real> &, const Real *grad,
                     const EdgeGradient<Real> &to);

    void (*polynomial)(const Polynomial<Real> &, Real t, Real *out);
    Real (*slope)(const Polynomial<Real> &, Real t, const Real *grad); // sum over the columns of grad * d/dt
};

template <class Real, InstructionSet> const EdgeKernels<Real> &edge_kernels(); // each compiled for its own
template <class Real> const EdgeKernels<Real> &choose_edge_kernels();          // for this processor

} // namespace equistride
