// Whether torch may round the factors of matrix products of float32 to TF32: torch.set_float32_matmul_precision.
#pragma once
#include <ATen/Context.h>

namespace equistride {

inline bool products_may_round() {
    try {
        return at::globalContext().float32MatmulPrecision() != at::Float32MatmulPrecision::HIGHEST;
    } catch (const c10::Error &) { // set by the newer fp32_precision, which this question cannot tell
        return true;
    }
}

} // namespace equistride
