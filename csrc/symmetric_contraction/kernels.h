// The inner loops of the contraction, one set for each instruction set. All run over a vector of channels of up to
// ATOMS atoms of one species, which share what is read of the table.
#pragma once
#include "instruction_set.h"

#include <cstdint>

namespace equistride {

constexpr int ATOMS = 4;

struct TermLeaf {
    int32_t input, row;
};

// Terms that share all factors but the last: out += (product of the prefix) * (sum over leaves of table * x).
struct TermRun {
    int32_t out, depth, prefix[3], begin, end;
};

template <class Real> struct ContractionStep {
    const TermRun *runs;
    int64_t run_count;
    const TermLeaf *leaves;
    int64_t inputs, channels;
    int atoms;
    const Real *x[ATOMS], *grad[ATOMS]; // rows; an atom that is not there repeats another
    const Real *table;                  // of the species
    Real *out[ATOMS];                   // added to: the output's rows, or those of the gradient of x
    Real *grad_table;                   // of the species, added to
    Real *scratch;                      // [2, inputs, ATOMS] vectors
};

template <class Real> struct ContractionKernels {
    using Kernel = void (*)(const ContractionStep<Real> &, int64_t first_channel);
    int lanes; // channels that a call takes, or those that are left
    Kernel forward, backward, backward_table;
};

template <class Real, InstructionSet>
const ContractionKernels<Real> &contraction_kernels(); // each compiled for its own

} // namespace equistride
