// Mechanics of atoms that many processes share; tensors hold this process's own atoms, float64 on the CPU.
#pragma once

#include "model/momenta.h"

#include <ATen/core/Tensor.h>

#include <mpi.h>

namespace equistride::lammps {

class Collective {
public:
    explicit Collective(MPI_Comm world) : world_(world) {}

    double sum(double mine) const;
    double largest(double mine) const;
    /// The sum over all processes of a tensor of any shape.
    at::Tensor sum(const at::Tensor &mine) const;
    /// What the first process says.
    double same(double value) const;

    /// Velocity [1, 3] of the centre of mass; masses [n, 1].
    at::Tensor drift(const at::Tensor &velocities, const at::Tensor &masses) const;
    /// Kinetic energy [eV] of all.
    double kinetic(const at::Tensor &velocities, const at::Tensor &masses) const;
    /// Give displacements and velocities after a stride [n, 3] the momentum of the velocities before it: the centre of
    /// mass moves on by its velocity times the stride.
    void keep_momentum(State &step, const at::Tensor &before, const at::Tensor &masses, double stride) const;

private:
    MPI_Comm world_;
};

} // namespace equistride::lammps
