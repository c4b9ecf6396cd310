// How weights are laid out for a kernel as a model is loaded.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>

namespace equistride {

/// While it lives, what this thread packs is made for that device and precision, whatever the weights' own; and each
/// tensor of weights is shown when it has been packed.
class PackScope {
public:
    PackScope(at::Device device, at::ScalarType dtype, std::function<void(const at::Tensor &)> shown)
        : device_(device), dtype_(dtype), shown_(std::move(shown)), outer_(std::exchange(current_, this)) {}
    ~PackScope() { current_ = outer_; }
    PackScope(const PackScope &) = delete;
    PackScope &operator=(const PackScope &) = delete;

    /// A matrix that was laid out, as it is wanted.
    static at::Tensor wanted(const at::Tensor &matrix) {
        return current_ == nullptr ? matrix : matrix.to(current_->device_, current_->dtype_);
    }
    static void show(const at::Tensor &weights) {
        if (current_ != nullptr)
            current_->shown_(weights);
    }

private:
    at::Device device_;
    at::ScalarType dtype_;
    std::function<void(const at::Tensor &)> shown_;
    PackScope *outer_;
    static inline thread_local PackScope *current_ = nullptr;
};

} // namespace equistride
