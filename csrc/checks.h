// The checks of arguments that several operators make, without reading a tensor; and memory for gradients.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace equistride {

inline void check_real(const char *name, const at::Tensor &tensor) {
    TORCH_CHECK_TYPE(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble, name,
                     " must be float32 or float64; found ", tensor.scalar_type());
}

inline void check_device(const char *name, const at::Tensor &tensor, const char *other_name, const at::Tensor &other) {
    TORCH_CHECK_VALUE(tensor.device() == other.device(), name, " must lie on the device of ", other_name, ", ",
                      other.device(), "; found ", tensor.device());
}

/// Type and device.
inline void check_like(const char *name, const at::Tensor &tensor, const char *other_name, const at::Tensor &other) {
    TORCH_CHECK_TYPE(tensor.scalar_type() == other.scalar_type(), name, " must have the type of ", other_name, ", ",
                     other.scalar_type(), "; found ", tensor.scalar_type(), "; convert one of them");
    check_device(name, tensor, other_name, other);
}

/// [2, E] int64.
inline void check_edge_index(const at::Tensor &edge_index, const char *other_name, const at::Tensor &other) {
    TORCH_CHECK_VALUE(edge_index.dim() == 2 && edge_index.sym_size(0) == 2, "edge_index must have shape [2, E]; found ",
                      edge_index.sym_sizes());
    TORCH_CHECK_TYPE(edge_index.scalar_type() == at::kLong, "edge_index must be int64; found ",
                     edge_index.scalar_type());
    check_device("edge_index", edge_index, other_name, other);
}

// Memory for the gradient to a tensor; an empty tensor where it is not wanted.
inline at::Tensor memory_like(const at::Tensor &tensor, bool wanted, bool clear = false) {
    if (!wanted)
        return at::empty({0}, tensor.options());
    return clear ? at::zeros_symint(tensor.sym_sizes(), tensor.options())
                 : at::empty_symint(tensor.sym_sizes(), tensor.options());
}

} // namespace equistride
