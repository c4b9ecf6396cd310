// What fix equistride/propagate is told after the elements.
#pragma once

#include "host.h"
#include "keywords.h"
#include "propagation/barostat.h"
#include "propagation/guard.h"
#include "propagation/thermostat.h"

namespace equistride::lammps {

struct PropagateOptions {
    double start = 0, stop = 0; ///< K, of the thermostat at the run's begin and end
    Thermostat thermostat{"none"};
    bool by_stride = false; ///< whether the friction follows the stride: 1 / FRICTION_STRIDES of it
    std::uint64_t seed = 0;
    std::string guard_file; ///< empty without a guard
    GuardSettings guard;
    std::optional<BarostatSettings> barostat;
    std::string ghost = "auto", device = "auto", precision = "auto";
};

/// The words after the elements. Raises c10::ValueError for what is not known or does not go together.
Keywords propagate_keywords(const std::vector<std::string> &words);

/// Raises c10::ValueError for values that cannot be.
/// @param units  of the run
PropagateOptions read_options(const Keywords &given, const RunUnits &units, double stride_fs);

} // namespace equistride::lammps
