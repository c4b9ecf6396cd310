// How the kernels' products read a matrix: panels of PANEL columns, one after the other.
#pragma once
#include "edge_block/kernels.h"

#include <ATen/core/Tensor.h>
#include <vector>

namespace equistride {

constexpr int64_t padded(int64_t columns) { return (columns + PANEL - 1) / PANEL * PANEL; }

/// Matrices [k, n] after one another, each as [panels, k, PANEL] with zeros beyond its last column.
at::Tensor in_panels(const std::vector<at::Tensor> &matrices);

} // namespace equistride
