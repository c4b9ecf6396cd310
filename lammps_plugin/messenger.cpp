#include "messenger.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace equistride::lammps {

at::Tensor Messenger::forward(const at::Tensor &features) { return carry(features, false); }
at::Tensor Messenger::backward(const at::Tensor &gradient) { return carry(gradient, true); }

at::Tensor Messenger::carry(const at::Tensor &rows, bool back) {
    const std::int64_t given = rows.size(0), n = surroundings_->rows(), owned = surroundings_->owned;
    const std::int64_t width = c10::multiply_integers(rows.sizes().slice(1));
    const at::Tensor in = rows.to(at::kCPU, at::kDouble).reshape({given, width}).contiguous();
    const at::Tensor out = at::empty({n, width}, in.options());
    std::copy_n(in.const_data_ptr<double>(), given * width, out.mutable_data_ptr<double>());
    double *values = out.mutable_data_ptr<double>();
    const std::vector<int> &atom = surroundings_->atom;
    for (std::int64_t start = 0; start < width; start += COLUMNS) {
        columns_ = static_cast<int>(std::min<std::int64_t>(COLUMNS, width - start));
        buffer_.assign(static_cast<std::size_t>(all_) * static_cast<std::size_t>(columns_), 0.0);
        const auto slot = [&](std::int64_t row) { return buffer_.data() + std::int64_t(atom[row]) * columns_; };
        for (std::int64_t row = 0; row < (back ? n : owned); row++)
            std::copy_n(values + row * width + start, columns_, slot(row));
        (back ? send_back_ : send_)(columns_);
        for (std::int64_t row = back ? 0 : owned; row < (back ? owned : n); row++)
            std::copy_n(slot(row), columns_, values + row * width + start);
        if (back)
            for (std::int64_t row = owned; row < n; row++)
                std::fill_n(values + row * width + start, columns_, 0.0);
    }
    std::vector<std::int64_t> shape = rows.sizes().vec();
    shape[0] = n;
    return out.reshape(shape).to(rows.options());
}

int Messenger::pack_forward(int n, const int *list, double *buf) const {
    for (int k = 0; k < n; k++)
        std::copy_n(buffer_.data() + std::int64_t(list[k]) * columns_, columns_, buf + std::int64_t(k) * columns_);
    return n * columns_;
}

void Messenger::unpack_forward(int n, int first, const double *buf) {
    std::copy_n(buf, std::int64_t(n) * columns_, buffer_.data() + std::int64_t(first) * columns_);
}

int Messenger::pack_reverse(int n, int first, double *buf) const {
    std::copy_n(buffer_.data() + std::int64_t(first) * columns_, std::int64_t(n) * columns_, buf);
    return n * columns_;
}

void Messenger::unpack_reverse(int n, const int *list, const double *buf) {
    for (int k = 0; k < n; k++)
        for (int c = 0; c < columns_; c++)
            buffer_[static_cast<std::size_t>(list[k]) * static_cast<std::size_t>(columns_) +
                    static_cast<std::size_t>(c)] += buf[std::int64_t(k) * columns_ + c];
}

} // namespace equistride::lammps
