// How arguments reach the kernels of tiles, and by which arithmetic they multiply.
#pragma once
#include "edge_block/problem.h"
#include "matmul_precision.h"

#include <ATen/core/Tensor.h>
#include <cstdlib>
#include <string_view>

namespace equistride {

namespace {

// Dense, and where four numbers can be loaded at once.
at::Tensor dense(const at::Tensor &tensor) {
    const at::Tensor made = tensor.contiguous();
    return reinterpret_cast<uintptr_t>(made.const_data_ptr()) % 16 == 0 ? made : made.clone();
}

// float32 on tensor cores, and to the precision that torch.set_float32_matmul_precision allows: "highest", the default,
// is float32; "high" and "medium" are TF32, to which torch's own products are rounded then. EQUISTRIDE_TENSOR_CORES=0
// goes without.
Arithmetic arithmetic_of(at::ScalarType type) {
    const char *const wanted = std::getenv("EQUISTRIDE_TENSOR_CORES");
    if (type != at::kFloat || (wanted != nullptr && std::string_view(wanted) == "0"))
        return Arithmetic::fma;
    return products_may_round() ? Arithmetic::tf32 : Arithmetic::split;
}

} // namespace

} // namespace equistride
