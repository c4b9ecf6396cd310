// Checks around a model's call: each names the atom that is at fault.
#pragma once

#include "model/model.h"

namespace equistride {

/// Atoms nearer than this are one on top of the other [A]. For a potential that is less than half of the shortest bond
/// there is, H-H: none was trained there, and the radial splines of served models begin near it.
inline double coincident(const Metadata &metadata) { return metadata.kind == "potential" ? 0.3 : 1e-3; }

void check_frame(const Frame &frame, const Model &model);
/// Raises c10::ValueError: "<what> of atom <label> is not finite; <mend>".
EQUISTRIDE_API void check_finite(const at::Tensor &values, const Frame &frame, const char *what, const char *mend);
/// check_finite() of the positions, with what to do about them.
EQUISTRIDE_API void check_positions(const Frame &frame);
void check_distances(const Frame &frame, const Metadata &metadata);

} // namespace equistride
