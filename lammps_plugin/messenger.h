// The exchange of features through LAMMPS's own communication.
#pragma once

#include "model/exchange.h"
#include "surroundings.h"

#include "comm.h"

#include <functional>
#include <vector>

namespace equistride::lammps {

/// Carries rows of features to the processes that see their atoms as ghosts, and gradients back, some columns at a
/// time. The style that owns it passes LAMMPS's pack and unpack calls on.
class Messenger final : public Exchange {
public:
    /// Columns in one message; a style's comm_forward and comm_reverse.
    static constexpr int COLUMNS = 256;

    /// @param forward, reverse  make LAMMPS send so many columns for the style
    Messenger(std::function<void(int)> forward, std::function<void(int)> reverse)
        : send_(std::move(forward)), send_back_(std::move(reverse)) {}

    /// The atoms of this step; `all` counts LAMMPS's own and ghost atoms.
    void begin(const Surroundings &surroundings, int all) {
        surroundings_ = &surroundings;
        all_ = all;
    }

    std::int64_t owned() const override { return surroundings_->owned; }
    at::Tensor forward(const at::Tensor &features) override;
    at::Tensor backward(const at::Tensor &gradient) override;

    int pack_forward(int n, const int *list, double *buf) const;
    void unpack_forward(int n, int first, const double *buf);
    int pack_reverse(int n, int first, double *buf) const;
    void unpack_reverse(int n, const int *list, const double *buf);

private:
    at::Tensor carry(const at::Tensor &rows, bool back);

    std::function<void(int)> send_, send_back_;
    const Surroundings *surroundings_ = nullptr;
    int all_ = 0;
    int columns_ = 0;            // of the message under way
    std::vector<double> buffer_; // [all, columns]
};

} // namespace equistride::lammps
