#include "model/placement.h"

#include <ATen/ATen.h>

namespace equistride {

void place(Frame &frame, const at::Tensor &positions, const at::Tensor &cell, bool wrap, const Model &model) {
    const auto options = positions.options();
    const at::Tensor box = cell.defined() ? cell.to(options) : at::zeros({3, 3}, options);
    at::Tensor placed = positions;
    if (wrap)
        placed = placed - placed.matmul(at::linalg_inv(box)).floor().matmul(box);
    else if (model.dtype() != positions.scalar_type())
        placed = placed - placed.mean(0, /*keepdim=*/true);
    frame.positions = placed.to(model.device(), model.dtype());
    frame.cell = box.to(model.device(), model.dtype());
}

} // namespace equistride
