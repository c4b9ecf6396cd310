// Checks around a model's call: each names the atom that is at fault.
#pragma once

#include "model/model.h"

namespace equistride {

/// Atoms nearer than this are one on top of the other [A].
inline constexpr double COINCIDENT = 1e-3;

/// Atoms that leave a stride faster than this many times the fastest that the model takes, or come farther than they
/// could at that speed, were thrown: the network has left its training data.
inline constexpr double THROWN = 2;

void check_frame(const Frame &frame, const Model &model);
/// Raises c10::ValueError: "<what> of atom <label> is not finite; <mend>".
EQUISTRIDE_API void check_finite(const at::Tensor &values, const Frame &frame, const char *what, const char *mend);
/// check_finite() of the positions, with what to do about them.
EQUISTRIDE_API void check_positions(const Frame &frame);
/// Raises c10::ValueError that names the first atom that a stride throws, see THROWN.
void check_stride(const at::Tensor &displacements, const at::Tensor &velocities, const Frame &frame,
                  const Metadata &metadata);
void check_distances(const Frame &frame);
/// Raises c10::ValueError that names the first atom of a frame as fast as `fastest` [A/fs], or the first edge of its
/// `vectors` [E, 3] shorter than `shortest` [A]; 0 for no such limit. The sentences are the networks' own (nn/speed.py,
/// models/trajcast.py), for those that cannot look themselves, or not in time.
void check_range(const at::Tensor &vectors, const Frame &frame, double shortest, double fastest);

} // namespace equistride
