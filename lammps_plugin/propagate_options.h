// What fix equistride/propagate is told after the elements.
#pragma once

#include "propagation/guard.h"
#include "propagation/thermostat.h"

namespace equistride::lammps {

struct PropagateOptions {
    double start = 0, stop = 0; ///< K, of the thermostat at the run's begin and end
    Thermostat thermostat{"none"};
    std::uint64_t seed = 0;
    std::string guard_file; ///< empty without a guard
    GuardSettings guard;
    std::string ghost = "auto", device = "auto", precision = "auto";
};

/// Whether the user trusts compiled models, which is known before a model is read.
bool read_trust(const std::vector<std::string> &words);

/// Raises c10::ValueError for words that are not known or do not go together.
/// @param words         those after the elements
/// @param femtoseconds  of LAMMPS's unit of time
PropagateOptions read_options(const std::vector<std::string> &words, double femtoseconds, double stride_fs);

} // namespace equistride::lammps
