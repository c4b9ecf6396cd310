#include "collective.h"

#include <ATen/ATen.h>

namespace equistride::lammps {

double Collective::sum(double mine) const {
    double all = 0;
    MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_SUM, world_);
    return same(all);
}

double Collective::largest(double mine) const {
    double all = 0;
    MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, world_);
    return all;
}

at::Tensor Collective::sum(const at::Tensor &mine) const {
    const at::Tensor from = mine.contiguous(), all = at::zeros_like(from);
    MPI_Allreduce(from.const_data_ptr<double>(), all.mutable_data_ptr<double>(), static_cast<int>(all.numel()),
                  MPI_DOUBLE, MPI_SUM, world_);
    return all;
}

double Collective::same(double value) const {
    MPI_Bcast(&value, 1, MPI_DOUBLE, 0, world_);
    return value;
}

at::Tensor Collective::drift(const at::Tensor &velocities, const at::Tensor &masses) const {
    return sum((masses * velocities).sum(0, /*keepdim=*/true)) / sum(masses.sum().item<double>());
}

double Collective::kinetic(const at::Tensor &velocities, const at::Tensor &masses) const {
    return sum(kinetic_energy(velocities, masses));
}

void Collective::keep_momentum(State &step, const at::Tensor &before, const at::Tensor &masses, double stride) const {
    const at::Tensor wanted = drift(before, masses);
    step.positions = step.positions + (wanted * stride - drift(step.positions, masses));
    step.velocities = step.velocities + (wanted - drift(step.velocities, masses));
}

} // namespace equistride::lammps
