// The inner loops on atoms' features, one set for each instruction set. Features are rows (l, m), l-major, of channels.
#pragma once
#include "instruction_set.h"

#include <cstdint>

namespace equistride {

// Sizes of a block. Plain numbers: an inline function could be linked with code that another file compiled for another
// instruction set.
struct AtomShape {
    int64_t l_max, channels, hidden;
    int64_t size;  // rows
    int64_t gates; // numbers before the rows between the layers, hidden for each degree above 0

    AtomShape(int64_t size, int64_t channels, int64_t hidden);
};

// Weight of each row and channel, bias of the scalars, weight of each row in the mean square.
template <class Real> struct RowNorm {
    const Real *weight, *bias, *balance;
    Real eps;
};

template <class Real> struct AtomKernels {
    // out = a + b; any may be the same.
    void (*add)(const Real *a, const Real *b, int64_t count, Real *out);
    void (*norm)(const AtomShape &, const RowNorm<Real> &, const Real *x, Real *out);
    // on_x += the gradient; `scalars` is room for channels.
    void (*norm_back)(const AtomShape &, const RowNorm<Real> &, const Real *x, const Real *grad, Real *scalars,
                      Real *on_x);
    // Gates and rows between the layers to rows: SiLU of the scalars, the others times the sigmoid of SiLU of their
    // gate.
    void (*gate)(const AtomShape &, const Real *inner, Real *out);
    void (*ungate)(const AtomShape &, const Real *inner, const Real *grad, Real *on_inner);
};

template <class Real, InstructionSet> const AtomKernels<Real> &atom_kernels(); // each compiled for its own
template <class Real> const AtomKernels<Real> &choose_atom_kernels();          // for this processor

} // namespace equistride
