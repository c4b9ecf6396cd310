// The exchange of features through LAMMPS's own communication.
#pragma once

#include "local_atoms.h"
#include "model/exchange.h"

#include "comm.h"

#include <functional>
#include <vector>

namespace equistride::lammps {

/// Carries rows of features to the processes that see their atoms as ghosts, and gradients back, some columns at a
/// time, in the precision they have: two of single precision in a double. They go from rows to LAMMPS's buffer and back
/// without a copy between. The style that owns it passes LAMMPS's pack and unpack calls on.
class GhostExchange final : public Exchange {
public:
    /// Doubles of an atom in one message; a style's comm_forward and comm_reverse.
    static constexpr int SLOTS = 256;

    /// @param forward, reverse  make LAMMPS send so many doubles an atom for the style
    GhostExchange(std::function<void(int)> forward, std::function<void(int)> reverse)
        : send_(std::move(forward)), send_back_(std::move(reverse)) {}

    /// The atoms of this step; `all` counts LAMMPS's own and ghost atoms.
    void begin(const LocalAtoms &local, int all);

    std::int64_t owned() const override { return local_->owned; }
    at::Tensor forward(const at::Tensor &features) override;
    at::Tensor backward(const at::Tensor &gradient) override;

    int pack_forward(int n, const int *list, double *buf) const;
    void unpack_forward(int n, int first, const double *buf);
    int pack_reverse(int n, int first, double *buf) const;
    void unpack_reverse(int n, const int *list, const double *buf);

private:
    at::Tensor carry(const at::Tensor &rows, bool back);
    template <class Number> void add(int n, const int *list, const double *buf);
    char *row(int atom) const { return values_ + place_[static_cast<std::size_t>(atom)] * stride_; }

    std::function<void(int)> send_, send_back_;
    const LocalAtoms *local_ = nullptr;
    int all_ = 0;
    std::vector<std::int64_t> place_; // row of each of LAMMPS's atoms; those that the model does not see come last

    // The message under way: some columns of a table with a row an atom.
    char *values_ = nullptr;   // of its first column
    std::int64_t stride_ = 0;  // bytes from row to row
    std::int64_t columns_ = 0; // numbers of a row
    std::int64_t bytes_ = 0;   // that they take
    int slots_ = 0;            // doubles of LAMMPS's buffer that hold them
    bool single_ = false;
};

} // namespace equistride::lammps
