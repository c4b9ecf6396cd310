// What LAMMPS is told of pairs and atoms, and a model of all atoms can or cannot honour.
#pragma once

#include <cstdint>
#include <vector>

namespace LAMMPS_NS {
class LAMMPS;
} // namespace LAMMPS_NS

namespace equistride::lammps {

/// Groups whose atoms `neigh_modify exclude group G all` keeps from all others, as bits of an atom's mask. So do fixes
/// that try what the energy is without an atom (gcmc, widom, charge/regulation): such atoms are not there. The groups
/// are those of now, the atoms in them may change from one evaluation to the next.
int outside_of(const LAMMPS_NS::LAMMPS &lmp);

/// What was found of the atoms that a model sees; the same on all processes.
struct Notes {
    bool outside = false; ///< some are in a group of outside_of()
    bool charged = false; ///< some have charges, which the model does not see
    bool bonded = false;  ///< some have bonds whose pairs special_bonds weighs, which a model does not
};

/// Look at atoms and settings when all fixes have been set up; all processes together.
/// Raises c10::ValueError for pairs of seen atoms that lists leave out, for lists of one group, and for two dimensions.
/// @param species  of each type of LAMMPS, from 1; -1 for types that the model does not see
Notes check_settings(const LAMMPS_NS::LAMMPS &lmp, const std::vector<std::int64_t> &species);

} // namespace equistride::lammps
