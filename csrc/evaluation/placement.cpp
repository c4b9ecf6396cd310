#include "evaluation/placement.h"

#include <ATen/ATen.h>

namespace equistride {

at::Tensor near_origin(const at::Tensor &positions, const at::Tensor &cell, const at::Tensor &inverse, bool wrap,
                       const Model &model) {
    if (wrap)
        return positions - positions.matmul(inverse).floor().matmul(cell);
    return model.dtype() == positions.scalar_type() ? positions : positions - positions.mean(0, /*keepdim=*/true);
}

void place(Frame &frame, const at::Tensor &positions, const at::Tensor &cell, bool wrap, const Model &model) {
    const auto options = positions.options();
    const at::Tensor box = cell.defined() ? cell.to(options) : at::zeros({3, 3}, options);
    const at::Tensor inverse = wrap ? at::linalg_inv(box) : at::Tensor();
    frame.positions = near_origin(positions, box, inverse, wrap, model).to(model.device(), model.dtype());
    frame.cell = box.to(model.device(), model.dtype());
}

} // namespace equistride
