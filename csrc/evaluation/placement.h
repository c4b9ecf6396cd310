// Positions of an engine as a potential takes them.
#pragma once

#include "model/model.h"

namespace equistride {

/// Set positions and cell of a frame, in the model's precision and on its device.
///
/// Atoms are first moved close to the origin in the caller's precision, which changes no distance: those that have
/// drifted a hundred boxes away keep their digits in a float32 model.
///
/// @param positions  [N, 3] A
/// @param cell       [3, 3] A, lattice vectors as rows, zeros along open axes; undefined where there is no box
/// @param wrap       whether the box is periodic along all axes
EQUISTRIDE_API void place(Frame &frame, const at::Tensor &positions, const at::Tensor &cell, bool wrap,
                          const Model &model);

/// The positions alone, [N, 3] in their own precision; `inverse` is the cell's, on the same device.
at::Tensor near_origin(const at::Tensor &positions, const at::Tensor &cell, const at::Tensor &inverse, bool wrap,
                       const Model &model);

} // namespace equistride
