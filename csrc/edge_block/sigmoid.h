// Of a number on the GPU.
#pragma once
#include <cmath>

namespace equistride {

namespace {

template <class Real> __device__ __forceinline__ Real sigmoid(Real x) { return 1 / (1 + std::exp(-x)); }

} // namespace

} // namespace equistride
