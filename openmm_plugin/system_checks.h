// What a propagator cannot move, and a model of atoms cannot see.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace OpenMM {
class System;
}

namespace equistride {

/// Raises OpenMM::OpenMMException where one of the particles is a virtual site or has a constraint.
/// @param site, constraint  why that cannot be, and what to do: ends of the sentences
void check_free(const OpenMM::System &system, const std::vector<std::int64_t> &particles, const std::string &site,
                const std::string &constraint);

/// Raises OpenMM::OpenMMException for particles that are not free atoms, for barostats, for a second thermostat and for
/// forces in the `groups` of integration, which would do nothing.
void check_propagated_system(const OpenMM::System &system, bool thermostat, int groups);

} // namespace equistride
