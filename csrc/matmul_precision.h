// Whether torch may round the factors of matrix products of float32 on a GPU to TF32.
#pragma once
#include <ATen/Context.h>

namespace equistride {

// What cuBLAS is told. torch.set_float32_matmul_precision, allow_tf32 and fp32_precision all end here, and the last
// word holds; the questions that go with the first two raise where words were mixed.
inline bool products_may_round() {
    return at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) ==
           at::Float32Precision::TF32;
}

} // namespace equistride
