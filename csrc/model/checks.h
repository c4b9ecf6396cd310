// Checks around a model's call: each names the atom that is at fault.
#pragma once

#include "model/model.h"

namespace equistride {

/// Atoms nearer than this are one on top of the other [A].
inline constexpr double COINCIDENT = 1e-3;

void check_frame(const Frame &frame, const Model &model);
/// Raises c10::ValueError: "<what> of atom <label> is not finite; <mend>".
EQUISTRIDE_API void check_finite(const at::Tensor &values, const Frame &frame, const char *what, const char *mend);
/// check_finite() of the positions, with what to do about them.
EQUISTRIDE_API void check_positions(const Frame &frame);
void check_distances(const Frame &frame);

} // namespace equistride
