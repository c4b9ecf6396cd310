// What a propagator cannot move.
#pragma once

namespace OpenMM {
class System;
}

namespace equistride {

/// Raises OpenMM::OpenMMException for particles that are not free atoms, for barostats, for a second thermostat and for
/// forces in the `groups` of integration, which would do nothing.
void check_propagated_system(const OpenMM::System &system, bool thermostat, int groups);

} // namespace equistride
