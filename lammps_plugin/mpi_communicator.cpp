#include "mpi_communicator.h"

#include "host.h"

#include <ATen/ATen.h>

#include <vector>

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
    add(&mine, &all, 1);
    return all;
}

double MpiCommunicator::largest(double mine) const {
    double all = 0;
    MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, world_);
    return all;
}

at::Tensor MpiCommunicator::sum(const at::Tensor &mine) const {
    const at::Tensor from = mine.contiguous(), all = at::zeros_like(from);
    add(from.const_data_ptr<double>(), all.mutable_data_ptr<double>(), static_cast<int>(all.numel()));
    return all;
}

// An allreduce may add in another order on each process. Of few numbers each process adds what all have, in their
// order; of many one process adds, and tells the others.
void MpiCommunicator::add(const double *mine, double *all, int count) const {
    constexpr int FEW = 32;
    if (count > FEW) {
        MPI_Reduce(mine, all, count, MPI_DOUBLE, MPI_SUM, 0, world_);
        MPI_Bcast(all, count, MPI_DOUBLE, 0, world_);
        return;
    }
    const auto width = static_cast<std::size_t>(count), processes = static_cast<std::size_t>(size());
    std::vector<double> each(width * processes);
    MPI_Allgather(mine, count, MPI_DOUBLE, each.data(), count, MPI_DOUBLE, world_);
    for (std::size_t k = 0; k < each.size(); k++)
        all[k % width] += each[k];
}

double MpiCommunicator::same(double value) const {
    MPI_Bcast(&value, 1, MPI_DOUBLE, 0, world_);
    return value;
}

std::string MpiCommunicator::first(std::string sentence) const { return shared_sentence(std::move(sentence), world_); }

} // namespace equistride::lammps
