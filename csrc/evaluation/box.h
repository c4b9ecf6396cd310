// Whether a box can be one of a model's systems.
#pragma once

#include "artifact/metadata.h"
#include "visibility.h"

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace equistride {

/// Raises c10::ValueError where the box is smaller than matter can be: an atom meets its own image nearer than the
/// model's shortest bond, or than any atoms but hydrogen's are, or atoms are denser than they ever are; or smaller than
/// the model declares. Cells of one atom pass. A cell without a volume is left to the search for neighbours.
/// @param cell   [3, 3] A, lattice vectors as rows, zeros along open axes; undefined where there is no box
/// @param atoms  how many lie in it
EQUISTRIDE_API void check_box(const at::Tensor &cell, std::int64_t atoms, const Metadata &metadata);

} // namespace equistride
