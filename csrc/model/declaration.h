// The one place that looks into a TorchScript module: what it is and offers, held against what its metadata declare.
#pragma once

#include "artifact/metadata.h"

#include <torch/csrc/jit/api/module.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

namespace equistride {

/// What a module turns out to be.
struct Observed {
    std::vector<double> cutoffs; ///< A, of its parts that have one
    int exchanges = 0;           ///< calls of `equistride::exchange` on the way to its energies or stride
    bool decomposable = false;   ///< see Contract
    bool padded = false, batched = false, uncertainty = false, angular_momentum = false;
    bool charge_spin = false;    ///< it has a total charge and a spin multiplicity
    std::vector<double> strides; ///< fs, of a propagator that says them: all that there are,
    double stride = 0;           ///< and the one that it begins with
    Limits limits;
    std::set<std::string> operators;         ///< of ours, by their qualified names
    std::vector<torch::jit::Module> packs;   ///< parts that make what they multiply by of their weights, once loaded
    std::vector<torch::jit::Module> layouts; ///< the same where an operator does, as its kernels read them
    std::vector<torch::jit::Module> looks;   ///< parts that would look at lengths and speeds, which the Model does
    std::vector<torch::jit::Module> charged; ///< parts that take charge and spin
};

Observed observe(const torch::jit::Module &module, bool potential);

/// Complete the contract of a file of format 1, which has none; refuse that of format 2 where it is not so. Raises
/// c10::ValueError with what is declared and what was found.
void hold_against(Metadata &metadata, const Observed &module, const std::string &name);

/// Raises c10::ValueError for an operator of ours that this build does not have in the version that the file needs.
void check_operators(const Metadata &metadata, const std::string &name);

/// One refusal of a lie.
void refuse_unless(bool so, const std::string &name, const char *what, const std::string &found,
                   const std::string &declared);

} // namespace equistride
