// Which bonds make molecules: a network that goes on through the box is none.
#pragma once

#include <openmm/Vec3.h>

#include <utility>
#include <vector>

namespace equistride {

/// The bonds but those of networks: where a walk along bonds comes back to an atom in another image. A barostat would
/// move such a network as one, and output shift it as one.
/// @param positions  [nm], one a particle of the System
/// @param box        vectors in OpenMM's reduced form [nm]
std::vector<std::pair<int, int>> bonds_of_molecules(const std::vector<std::pair<int, int>> &bonds,
                                                    const std::vector<OpenMM::Vec3> &positions,
                                                    const OpenMM::Vec3 (&box)[3]);

} // namespace equistride
