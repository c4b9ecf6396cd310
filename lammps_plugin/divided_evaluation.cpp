#include "divided_evaluation.h"

#include "composition.h"
#include "host.h"

#include "atom.h"

#include <ATen/ATen.h>

namespace equistride::lammps {

// The frame with own atoms at these positions, ghosts where their owners have gone, and edges; in another cell than
// LAMMPS's, ghosts lie where that takes them.
void DividedEvaluation::find(const Coordinates &now) {
    const at::Tensor &positions = now.positions, cell = cell_of(types_.domain);
    const int all = types_.atoms.nlocal + types_.atoms.nghost;
    local_.take(types_.atoms, types_.species, policy_.kind, LocalAtoms::Order::by_id);
    if (!at::equal(now.cell, cell))
        local_.frame.positions = local_.frame.positions.matmul(at::linalg_solve(cell, now.cell));
    const at::Tensor gone = positions - local_.frame.positions.narrow(0, 0, local_.owned);
    const double farthest = communicator_.largest(gone.numel() ? gone.abs().max().item<double>() : 0.0);
    TORCH_CHECK_VALUE(farthest <= MARGIN, "an atom went too far in a stride for the ghosts of its neighbours; ",
                      "expected at most ", MARGIN, " A; found ", farthest, " A; the run has left the training data");
    if (farthest > 0) {
        exchange_.begin(local_, all);
        local_.frame.positions = local_.frame.positions + exchange_.forward(gone);
        local_.frame.positions.narrow(0, 0, local_.owned).copy_(positions);
    }
    check_composition(model_, local_, communicator_);
    together(communicator_, [&] { local_.connect(types_.domain, now.cell, model_.metadata(), policy_); });
    exchange_.begin(local_, all);
}

Outputs DividedEvaluation::compute(const Coordinates &now, bool forces) {
    find(now);
    Outputs outputs;
    const bool moves = !model_.metadata().is_potential();
    if (moves)
        local_.frame.velocities = exchange_.forward(now.velocities);
    const PartOutputs part =
        model_.compute_part(local_.frame, local_.owned, policy_.sends ? &exchange_ : nullptr, forces, communicator_);
    outputs.atomic_energies = part.atomic_energies;
    if (moves) {
        const at::Tensor table = at::tensor(model_.metadata().masses, at::kDouble);
        const at::Tensor species = local_.frame.species.narrow(0, 0, local_.owned);
        const Stride kept = keep_momenta({now.positions, now.velocities}, {part.displacements, part.velocities},
                                         table.index_select(0, species).unsqueeze(1), model_.metadata().stride_fs,
                                         model_.metadata().contract.angular_momentum &&
                                             !periodicity_of(types_.domain).any().item<bool>(),
                                         communicator_);
        outputs.displacements = kept.displacements;
        outputs.velocities = kept.velocities;
    } else if (forces)
        outputs.forces = forces_of(part.gradient);
    return outputs;
}

// Of own atoms, with what other processes' energies pull at them.
at::Tensor DividedEvaluation::forces_of(const at::Tensor &gradient) {
    const Frame &frame = local_.frame;
    const at::Tensor pulls = forces_from_edges(gradient, frame.edge_index, frame.shifts, local_.rows());
    return exchange_.backward(pulls).narrow(0, 0, local_.owned);
}

Outputs LocalEvaluation::compute(const Coordinates &now, bool forces) {
    local_.take(types_.atoms, types_.species, Ghosts::local, LocalAtoms::Order::by_id);
    const at::Tensor periodicity = periodicity_of(types_.domain);
    if (!evaluation_ || !at::equal(species_, local_.frame.species) || !at::equal(periodicity_, periodicity)) {
        species_ = local_.frame.species;
        periodicity_ = periodicity;
        evaluation_ = std::make_unique<SystemEvaluation>(model_, species_, periodicity_);
    }
    return evaluation_->compute(now, forces);
}

} // namespace equistride::lammps
