#include "mpi_communicator.h"

#include "host.h"

#include <ATen/ATen.h>

namespace equistride::lammps {

std::int64_t MpiCommunicator::size() const {
    int size = 1;
    MPI_Comm_size(world_, &size);
    return size;
}

std::int64_t MpiCommunicator::rank() const {
    int rank = 0;
    MPI_Comm_rank(world_, &rank);
    return rank;
}

double MpiCommunicator::sum(double mine) const {
    double all = 0;
    MPI_Reduce(&mine, &all, 1, MPI_DOUBLE, MPI_SUM, 0, world_);
    return same(all);
}

double MpiCommunicator::largest(double mine) const {
    double all = 0;
    MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, world_);
    return all;
}

// One process adds and tells the others: an allreduce may add in another order on each.
at::Tensor MpiCommunicator::sum(const at::Tensor &mine) const {
    const at::Tensor from = mine.contiguous(), all = at::zeros_like(from);
    const auto count = static_cast<int>(all.numel());
    MPI_Reduce(from.const_data_ptr<double>(), all.mutable_data_ptr<double>(), count, MPI_DOUBLE, MPI_SUM, 0, world_);
    MPI_Bcast(all.mutable_data_ptr<double>(), count, MPI_DOUBLE, 0, world_);
    return all;
}

double MpiCommunicator::same(double value) const {
    MPI_Bcast(&value, 1, MPI_DOUBLE, 0, world_);
    return value;
}

std::string MpiCommunicator::first(std::string sentence) const { return shared_sentence(std::move(sentence), world_); }

} // namespace equistride::lammps
