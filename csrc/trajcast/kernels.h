// The inner loops of a TrajCast layer beside its products, one set for each instruction set.
#pragma once
#include "instruction_set.h"

#include <cstdint>

namespace equistride {

// What becomes of an irrep at the end of a layer.
enum class Opening : int64_t { tanh, silu, gated };
struct Output {
    int64_t rows;
    Opening opening;
    int64_t from, gate; // its first column before the gate, and that of its gate
    int64_t old;        // first column of what is added to it; -1: nothing
    int64_t to;
};

template <class Real> struct GateFactors {
    Real tanh, silu; // of the functions' values
};

template <class Real> struct TrajCastKernels {
    void (*silu)(Real *x, int64_t count);
    // Of one atom: `channels` of each row.
    void (*gate)(const Output *outputs, int64_t count, int64_t channels, const GateFactors<Real> &, const Real *open,
                 const Real *old, Real *out);
};

template <class Real, InstructionSet> const TrajCastKernels<Real> &trajcast_kernels(); // each compiled for its own

} // namespace equistride
