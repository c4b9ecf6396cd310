// What a propagator cannot move, and a model of atoms cannot see.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace OpenMM {
class System;
class Vec3;
} // namespace OpenMM

namespace equistride {

/// Whether something else than integrators and thermostats moves the atoms.
bool has_forces(const OpenMM::System &system);

/// Raises OpenMM::OpenMMException where one of the particles has a constraint.
/// @param reason  why that cannot be, and what to do: the end of the sentence
void check_unconstrained(const OpenMM::System &system, const std::vector<std::int64_t> &particles,
                         const std::string &reason);

/// Raises OpenMM::OpenMMException where the System has the box that OpenMM gives where none is set, and its topology
/// another one [nm].
void check_box_was_set(const OpenMM::System &system, const std::vector<OpenMM::Vec3> &topology);

/// Raises OpenMM::OpenMMException for particles that are not free atoms, for barostats, for a second thermostat and for
/// forces in the `groups` of integration, which would do nothing.
void check_propagated_system(const OpenMM::System &system, bool thermostat, int groups);

} // namespace equistride
