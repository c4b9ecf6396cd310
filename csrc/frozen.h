// What operators with frozen weights, and with first gradients alone, refuse.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <vector>

namespace equistride {

inline bool wants_gradient(const std::vector<at::Tensor> &tensors) {
    return at::GradMode::is_enabled() &&
           std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor &tensor) { return tensor.requires_grad(); });
}

/// @param what  the tensors, in words
inline void check_frozen(const char *what, const std::vector<at::Tensor> &tensors) {
    TORCH_CHECK_VALUE(!wants_gradient(tensors), what,
                      " have no gradient here; expected tensors that need none; train with the plain network and fuse "
                      "it afterwards");
}

/// @param what  the operators with their verb: "the fused bonds have"
inline void refuse_second(const char *what, const std::vector<at::Tensor> &tensors) {
    TORCH_CHECK_NOT_IMPLEMENTED(!wants_gradient(tensors), what,
                                " first gradients only; for second gradients use the plain network");
}

} // namespace equistride
