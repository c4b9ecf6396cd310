// The processes of a LAMMPS run.
#pragma once

#include "model/communicator.h"

#include <mpi.h>

namespace equistride::lammps {

class MpiCommunicator final : public Communicator {
public:
    explicit MpiCommunicator(MPI_Comm world) : world_(world) {}

    std::int64_t size() const override;
    std::int64_t rank() const override;
    double sum(double mine) const override;
    double largest(double mine) const override;
    at::Tensor sum(const at::Tensor &mine) const override;
    double same(double value) const override;
    std::string first(std::string sentence) const override;

private:
    void add(const double *mine, double *all, int count) const;

    MPI_Comm world_;
};

} // namespace equistride::lammps
