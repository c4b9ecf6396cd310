// From LAMMPS's atoms to a model's frame.
#pragma once

#include "ghosts.h"

namespace LAMMPS_NS {
class Atom;
class Domain;
} // namespace LAMMPS_NS

namespace equistride::lammps {

/// The atoms that a model is given: rows 0 ... owned - 1 are this process's, ghosts follow.
struct LocalAtoms {
    enum class Order { as_they_are, by_id }; ///< of own atoms: LAMMPS sorts them from time to time

    Frame frame; ///< positions in double precision on the CPU; labels are set
    std::int64_t owned = 0;
    std::vector<int> atom;            ///< LAMMPS's index of each row
    std::vector<std::int64_t> labels; ///< LAMMPS's ID of each row

    std::int64_t rows() const { return static_cast<std::int64_t>(atom.size()); }

    /// Own atoms, and ghosts unless they are `local`, where LAMMPS has them; without edges.
    /// @param species  index into the model's species for each type of LAMMPS, -1 for types that the model does not see
    /// @param outside  bits of groups whose atoms it does not see
    void take(const LAMMPS_NS::Atom &atoms, const std::vector<std::int64_t> &species, Ghosts ghosts,
              Order order = Order::as_they_are, int outside = 0);
    /// Edges within the model's cutoff, in a cell [3, 3] A. Ghosts on which no own atom depends are left out. Raises
    /// c10::ValueError for a box that is too small for the model.
    void connect(const LAMMPS_NS::Domain &domain, const at::Tensor &cell, const Metadata &metadata,
                 const GhostPolicy &policy);

private:
    void prune(int message_passing_steps);
};

} // namespace equistride::lammps
