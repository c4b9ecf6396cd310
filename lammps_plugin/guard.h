// The guard of a propagator, for atoms that many processes share: total energy before and after a stride.
#pragma once

#include "collective.h"
#include "ghost_exchange.h"

#include <memory>
#include <string>

namespace LAMMPS_NS {
class Atom;
class Domain;
} // namespace LAMMPS_NS

namespace equistride::lammps {

class DividedGuard {
public:
    struct Counts {
        double checks = 0, violations = 0, largest = 0;
    };

    /// @param species  index into the potential's species for each type of LAMMPS
    DividedGuard(std::unique_ptr<Model> potential, std::vector<std::int64_t> species, int every, double bound);

    bool due(std::int64_t stride) const { return stride % every_ == 0; }
    /// Width of ghost atoms [A] that the potential needs.
    double reach() const;
    void choose_ghosts(bool one);

    /// Potential energy [eV] of all atoms at LAMMPS's positions.
    double energy(const LAMMPS_NS::Atom &atoms, const LAMMPS_NS::Domain &domain, GhostExchange &exchange,
                  const Collective &collective);
    /// Velocities after a stride [n, 3], brought back to the total energy before it where it changed by more than the
    /// bound. Raises c10::ValueError where a factor between 1/2 and 2 cannot do that.
    at::Tensor mend(const at::Tensor &velocities, const at::Tensor &masses, double before, double after,
                    std::int64_t atoms, const Collective &collective);

    const Model &model() const { return *potential_; }
    const LocalAtoms &local() const { return local_; }
    const Counts &counts() const { return counts_; }

private:
    std::unique_ptr<Model> potential_;
    std::vector<std::int64_t> species_;
    std::int64_t every_;
    double bound_; // eV an atom
    LocalAtoms local_;
    Ghosts ghosts_ = Ghosts::local;
    int message_passing_steps_;
    Counts counts_;
};

} // namespace equistride::lammps
