#include "ghost_exchange.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace equistride::lammps {

// LAMMPS's messages are of doubles, of which each carries two single-precision numbers: copied as bytes, never read.
static_assert(sizeof(double) == 2 * sizeof(float));

void GhostExchange::begin(const LocalAtoms &local, int all) {
    local_ = &local;
    all_ = all;
    place_.assign(static_cast<std::size_t>(all), -1);
    std::int64_t next = 0;
    for (const int atom : local.atom)
        place_[static_cast<std::size_t>(atom)] = next++;
    for (std::int64_t &place : place_)
        if (place < 0)
            place = next++;
}

at::Tensor GhostExchange::forward(const at::Tensor &features) { return carry(features, false); }
at::Tensor GhostExchange::backward(const at::Tensor &gradient) { return carry(gradient, true); }

at::Tensor GhostExchange::carry(const at::Tensor &rows, bool back) {
    const std::int64_t given = rows.size(0), n = local_->rows(), owned = local_->owned;
    const std::int64_t width = c10::multiply_integers(rows.sizes().slice(1));
    const at::ScalarType type = rows.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor in = rows.to(at::kCPU, type).reshape({given, width});
    const at::Tensor table = at::empty({all_, width}, in.options());
    const std::int64_t known = back ? given : owned;
    table.narrow(0, 0, known).copy_(in.narrow(0, 0, known));
    if (back)
        table.narrow(0, known, all_ - known).zero_();
    single_ = type == at::kFloat;
    stride_ = width * static_cast<std::int64_t>(table.element_size());
    const std::int64_t most = SLOTS * (single_ ? 2 : 1);
    for (std::int64_t start = 0; start < width; start += most) {
        columns_ = std::min(most, width - start);
        bytes_ = columns_ * static_cast<std::int64_t>(table.element_size());
        slots_ = static_cast<int>(single_ ? (columns_ + 1) / 2 : columns_);
        values_ = static_cast<char *>(table.data_ptr()) + start * static_cast<std::int64_t>(table.element_size());
        (back ? send_back_ : send_)(slots_);
    }
    const at::Tensor out = table.narrow(0, 0, n);
    if (back)
        out.narrow(0, owned, n - owned).zero_();
    std::vector<std::int64_t> shape = rows.sizes().vec();
    shape[0] = n;
    return out.reshape(shape).to(rows.options());
}

int GhostExchange::pack_forward(int n, const int *list, double *buf) const {
    for (int k = 0; k < n; k++, buf += slots_)
        std::copy_n(row(list[k]), bytes_, reinterpret_cast<char *>(buf));
    return n * slots_;
}

void GhostExchange::unpack_forward(int n, int first, const double *buf) {
    for (int k = 0; k < n; k++, buf += slots_)
        std::copy_n(reinterpret_cast<const char *>(buf), bytes_, row(first + k));
}

int GhostExchange::pack_reverse(int n, int first, double *buf) const {
    for (int k = 0; k < n; k++, buf += slots_)
        std::copy_n(row(first + k), bytes_, reinterpret_cast<char *>(buf));
    return n * slots_;
}

template <class Number> void GhostExchange::add(int n, const int *list, const double *buf) {
    for (int k = 0; k < n; k++, buf += slots_) {
        auto *sum = reinterpret_cast<Number *>(row(list[k]));
        const auto *part = reinterpret_cast<const Number *>(buf);
        for (std::int64_t c = 0; c < columns_; c++)
            sum[c] += part[c];
    }
}

void GhostExchange::unpack_reverse(int n, const int *list, const double *buf) {
    single_ ? add<float>(n, list, buf) : add<double>(n, list, buf);
}

} // namespace equistride::lammps
