// The composition that a model holds for, whatever processes have the atoms.
#pragma once

#include "local_atoms.h"

#include <ATen/ATen.h>

namespace equistride::lammps {

/// Raises c10::ValueError where the model holds for another composition than that of the own atoms of all processes.
/// Where it holds for any nothing is done; else all processes must call it together, and it raises on all.
inline void check_composition(const Model &model, const LocalAtoms &local, const Communicator &communicator) {
    if (!model.metadata().composition)
        return;
    const auto kinds = static_cast<std::int64_t>(model.metadata().species.size());
    const at::Tensor mine = at::bincount(local.frame.species.narrow(0, 0, local.owned), {}, kinds).to(at::kDouble);
    model.check_composition(at::repeat_interleave(communicator.sum(mine).to(at::kLong)));
}

} // namespace equistride::lammps
