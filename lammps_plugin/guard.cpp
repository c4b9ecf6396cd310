#include "guard.h"

#include "atom.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace equistride::lammps {

DividedGuard::DividedGuard(std::unique_ptr<Model> potential, std::vector<std::int64_t> species, int every, double bound)
    : potential_(std::move(potential)), species_(std::move(species)), every_(every), bound_(bound),
      message_passing_steps_(message_passing_steps_of(*potential_)) {
    const Metadata &metadata = potential_->metadata();
    TORCH_CHECK_VALUE(metadata.kind == "potential", "a guard needs the energy of a potential; found a ", metadata.kind,
                      "; give it the artifact of a potential of the same system");
    TORCH_CHECK_VALUE(potential_->supports_domain_decomposition(),
                      "the guard's potential does not give energies from edge vectors; choose a ",
                      "potential that equistride trained");
}

void DividedGuard::choose_ghosts(bool one) {
    ghosts_ = one                                                          ? Ghosts::local
              : potential_->exchanges() > 0 || message_passing_steps_ == 1 ? Ghosts::exchange
                                                                           : Ghosts::wide;
}

double DividedGuard::reach() const {
    return potential_->metadata().cutoff * (ghosts_ == Ghosts::wide ? message_passing_steps_ : 1);
}

double DividedGuard::energy(const LAMMPS_NS::Atom &atoms, const LAMMPS_NS::Domain &domain, GhostExchange &exchange,
                            const Collective &collective) {
    local_.find(atoms, domain, species_, potential_->metadata().cutoff, ghosts_, message_passing_steps_);
    exchange.begin(local_, atoms.nlocal + atoms.nghost);
    const bool sends = ghosts_ == Ghosts::exchange && potential_->exchanges() > 0;
    const PartOutputs out = potential_->compute_part(local_.frame, local_.owned, sends ? &exchange : nullptr);
    return collective.sum(out.atomic_energies.sum().item<double>());
}

at::Tensor DividedGuard::mend(const at::Tensor &velocities, const at::Tensor &masses, double before, double after,
                              std::int64_t atoms, const Collective &collective) {
    const double change = (after - before) / static_cast<double>(atoms);
    counts_.checks++;
    counts_.largest = std::max(counts_.largest, std::abs(change));
    if (std::abs(change) <= bound_)
        return velocities;
    counts_.violations++;
    const at::Tensor whole = collective.drift(velocities, masses).expand_as(velocities), internal = velocities - whole;
    const double square = 1.0 + (before - after) / collective.kinetic(internal, masses);
    TORCH_CHECK_VALUE(square >= 0.25 && square <= 4.0, "a stride changed the total energy by ", change,
                      " eV an atom, more than velocities can make up for; expected at most ", bound_,
                      " eV an atom; the run has left the training data");
    return whole + std::sqrt(square) * internal;
}

} // namespace equistride::lammps
