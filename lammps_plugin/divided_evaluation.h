// A model on LAMMPS's atoms, as a run of a propagator evaluates it: its own atoms, wherever they have come in a stride.
#pragma once

#include "evaluation/evaluation.h"
#include "ghost_exchange.h"
#include "model/momenta.h"

namespace equistride::lammps {

/// Where LAMMPS has the atoms, and what a model calls their types.
struct AtomTypes {
    const LAMMPS_NS::Atom &atoms;
    const LAMMPS_NS::Domain &domain;
    std::vector<std::int64_t> species; ///< index into the model's species for each type of LAMMPS, from 1
};

/// How far an atom may go from where LAMMPS made its ghosts [A]: two that come nearer to each other by twice as much
/// are still seen.
inline constexpr double MARGIN = 1.0;

/// The atoms of many processes, or of one that sees its own periodic images as ghosts. Own atoms are in the order of
/// their IDs, which messages name.
class DividedEvaluation final : public Evaluation {
public:
    /// All but `types` must outlive this.
    DividedEvaluation(Model &model, AtomTypes types, const GhostPolicy &policy, GhostExchange &exchange,
                      const Communicator &communicator)
        : model_(model), types_(std::move(types)), policy_(policy), exchange_(exchange), communicator_(communicator) {}

    Model &model() const override { return model_; }
    /// Energies and forces, or displacements and velocities, of own atoms, which may have moved up to MARGIN since
    /// LAMMPS last made ghosts.
    Outputs compute(const Coordinates &now, bool forces = true) override;

private:
    void find(const Coordinates &now);
    at::Tensor forces_of(const at::Tensor &gradient);

    Model &model_;
    AtomTypes types_;
    GhostPolicy policy_;
    GhostExchange &exchange_;
    const Communicator &communicator_;
    LocalAtoms local_;
};

/// All atoms on one process: a SystemEvaluation of those that LAMMPS has now, in the order of their IDs.
class LocalEvaluation final : public Evaluation {
public:
    LocalEvaluation(Model &model, AtomTypes types) : model_(model), types_(std::move(types)) {}

    Model &model() const override { return model_; }
    Outputs compute(const Coordinates &now, bool forces = true) override;
    void check() override { evaluation_->check(); }

private:
    Model &model_;
    AtomTypes types_;
    LocalAtoms local_;
    at::Tensor species_, periodicity_; // for which the evaluation is
    std::unique_ptr<SystemEvaluation> evaluation_;
};

} // namespace equistride::lammps
