// How weights are laid out for a kernel as a model is loaded.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>
#include <vector>

namespace equistride {

/// While it lives, what this thread packs is made for that device and precision, whatever the weights' own; and they
/// are shown when they have been packed.
class PackScope {
public:
    PackScope(at::Device device, at::ScalarType dtype, std::function<void(at::TensorList)> shown)
        : device_(device), dtype_(dtype), shown_(std::move(shown)), outer_(std::exchange(current_, this)) {}
    ~PackScope() { current_ = outer_; }
    PackScope(const PackScope &) = delete;
    PackScope &operator=(const PackScope &) = delete;

    static at::Tensor wanted(const at::Tensor &weights) {
        return current_ == nullptr ? weights : weights.to(current_->device_, current_->dtype_);
    }
    static std::vector<at::Tensor> wanted(at::TensorList weights) {
        std::vector<at::Tensor> found;
        for (const at::Tensor &each : weights)
            found.push_back(wanted(each));
        return found;
    }
    static void show(at::TensorList weights) {
        if (current_ != nullptr)
            current_->shown_(weights);
    }

private:
    at::Device device_;
    at::ScalarType dtype_;
    std::function<void(at::TensorList)> shown_;
    PackScope *outer_;
    static inline thread_local PackScope *current_ = nullptr;
};

} // namespace equistride
