// Checks around a model's call: each names the atom that is at fault.
#pragma once

#include "model/model.h"

#include <optional>

namespace equistride {

/// Atoms nearer than this are one on top of the other [A].
inline constexpr double COINCIDENT = 1e-3;

/// Atoms that leave a stride faster than this many times the fastest that the model takes, or come farther than they
/// could at that speed, were thrown: the network has left its training data.
inline constexpr double THROWN = 2;

/// What a model asks of every frame before it is evaluated: shapes, types, geometry.
void check_inputs(const Frame &frame, const Model &model);
/// Positions and velocities that are finite, atoms that are not on top of one another, and the model's limits.
void check_geometry(const Frame &frame, const Metadata &metadata);
/// Raises c10::ValueError that names the first atom with an output that is not finite.
void check_outputs(const Outputs &outputs, const Frame &frame);
/// The largest of all numbers, float32 or float64, without their signs; NaN where one is no number, 0 where there are
/// none. On a CPU without operators of torch, which cost a small system more than what they compute.
double largest_magnitude(const at::Tensor &values);
/// Raises c10::ValueError: "<what> of atom <label> is not finite; <hint>".
EQUISTRIDE_API void check_finite(const at::Tensor &values, const Frame &frame, const char *what, const char *hint);
/// check_finite() of the positions, with what to do about them.
EQUISTRIDE_API void check_positions(const Frame &frame);
/// Raises c10::ValueError that names the first atom that a stride throws, see THROWN.
void check_stride(const at::Tensor &displacements, const at::Tensor &velocities, const Frame &frame,
                  const Metadata &metadata);
/// Two atoms by the engine's numbers, and how far apart they are [A].
struct ClosePair {
    std::int64_t first, second;
    double distance;
};
/// A pair of a frame's edges that is nearer than `distance` A: the first on a CPU, the nearest on a GPU.
EQUISTRIDE_API std::optional<ClosePair> closer_than(const Frame &frame, double distance);
void check_distances(const Frame &frame);
/// Raises c10::ValueError that names the first atom that is faster, or the first two that are nearer, than the model
/// takes.
void check_limits(const Frame &frame, const Limits &limits);

} // namespace equistride
