// From LAMMPS's atoms to a model's frame.
#pragma once

#include "model/model.h"

#include <cstdint>
#include <vector>

namespace LAMMPS_NS {
class Atom;
class Domain;
} // namespace LAMMPS_NS

namespace equistride::lammps {

/// How a process sees the atoms of others.
enum class Ghosts {
    local,   ///< one process: periodic images are shifts of its own atoms
    wide,    ///< ghosts as far as a message travels
    exchange ///< ghosts within one cutoff, whose features their owners send between the layers
};

/// The atoms that a model is given: rows 0 ... owned - 1 are this process's, ghosts follow.
struct LocalAtoms {
    Frame frame; ///< positions in double precision on the CPU; labels are set
    std::int64_t owned = 0;
    std::vector<int> atom;            ///< LAMMPS's index of each row
    std::vector<std::int64_t> labels; ///< LAMMPS's ID of each row

    std::int64_t rows() const { return static_cast<std::int64_t>(atom.size()); }

    /// Own and ghost atoms, without edges: row k is LAMMPS's atom k where the model sees every type.
    void take(const LAMMPS_NS::Atom &atoms, const std::vector<std::int64_t> &species);

    /// @param species  index into the model's species for each type of LAMMPS, -1 for types that the model does not see
    /// @param message_passing_steps     how far messages travel, in cutoffs; ghosts beyond are left out
    void find(const LAMMPS_NS::Atom &atoms, const LAMMPS_NS::Domain &domain, const std::vector<std::int64_t> &species,
              double cutoff, Ghosts ghosts, int message_passing_steps);

private:
    void choose(const LAMMPS_NS::Atom &atoms, const std::vector<std::int64_t> &species, int count);
    void prune(int message_passing_steps);
};

/// How far a message of the model travels, in cutoffs.
int message_passing_steps_of(const Model &model);

} // namespace equistride::lammps
