#include "model/checks.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace equistride {
namespace {

constexpr double METRES_PER_SECOND = 1e5; // 1 A/fs

std::int64_t label(const Frame &frame, std::int64_t atom) {
    return frame.labels ? (*frame.labels)[static_cast<std::size_t>(atom)] : atom;
}

// Index of the first edge with a distance below this, or -1. Plain loops: it must cost little beside the model.
template <typename scalar_t> std::int64_t find_closer(const Frame &frame, double distance) {
    const at::Tensor positions = frame.positions.contiguous(), cell = frame.cell.contiguous();
    const at::Tensor edges = frame.edge_index.contiguous(), shifts = frame.shifts.contiguous();
    const auto *r = positions.const_data_ptr<scalar_t>();
    const auto *h = cell.const_data_ptr<scalar_t>();
    const std::int64_t count = edges.size(1);
    const auto *receiver = edges.const_data_ptr<std::int64_t>(), *sender = receiver + count;
    const auto *s = shifts.const_data_ptr<std::int32_t>();
    for (std::int64_t e = 0; e < count; e++) {
        const std::int64_t i = receiver[e], j = sender[e];
        if (j < i) // its reverse is in the list as well
            continue;
        scalar_t square = 0;
        for (int k = 0; k < 3; k++) {
            const scalar_t d = r[3 * j + k] - r[3 * i + k] + scalar_t(s[3 * e]) * h[k] +
                               scalar_t(s[3 * e + 1]) * h[3 + k] + scalar_t(s[3 * e + 2]) * h[6 + k];
            square += d * d;
        }
        if (square < distance * distance)
            return e;
    }
    return -1;
}

at::Tensor edge_lengths(const Frame &frame) { return edge_vectors(frame).norm(2, 1); }

void check_frame(const Frame &frame, const Model &model) {
    const at::ScalarType dtype = model.input_dtype();
    const at::Device device = model.device();
    const at::Tensor &r = frame.positions;
    TORCH_CHECK_VALUE(r.defined() && r.dim() == 2 && r.size(1) == 3,
                      "positions have the wrong shape; expected [N, 3]; found ",
                      r.defined() ? r.sizes() : at::IntArrayRef());
    const std::int64_t n = r.size(0);
    TORCH_CHECK_VALUE(frame.species.defined() && frame.species.dim() == 1 && frame.species.size(0) == n,
                      "the number of species is wrong; expected ", n, ", one an atom; found ",
                      frame.species.defined() ? frame.species.sizes() : at::IntArrayRef());
    TORCH_CHECK_VALUE(frame.cell.defined() && frame.cell.dim() == 2 && frame.cell.size(0) == 3 &&
                          frame.cell.size(1) == 3,
                      "the cell has the wrong shape; expected [3, 3]");
    TORCH_CHECK_VALUE(frame.edge_index.defined() && frame.edge_index.dim() == 2 && frame.edge_index.size(0) == 2 &&
                          frame.edge_index.scalar_type() == at::kLong,
                      "edge_index is wrong; expected int64 of shape [2, E]");
    TORCH_CHECK_VALUE(frame.shifts.defined() && frame.shifts.dim() == 2 &&
                          frame.shifts.size(0) == frame.edge_index.size(1) && frame.shifts.size(1) == 3 &&
                          frame.shifts.scalar_type() == at::kInt,
                      "shifts are wrong; expected int32 of shape [E, 3]");
    for (const auto *t : {&frame.positions, &frame.cell})
        TORCH_CHECK_VALUE(t->scalar_type() == dtype && t->device() == device,
                          "positions or cell do not fit the model; expected ", dtype, " on ", device, "; found ",
                          t->scalar_type(), " on ", t->device());
    if (!model.metadata().is_potential())
        TORCH_CHECK_VALUE(frame.velocities.defined() && frame.velocities.sizes() == r.sizes() &&
                              frame.velocities.scalar_type() == dtype,
                          "a propagator needs velocities of the shape and type of the positions");
}

} // namespace

void check_inputs(const Frame &frame, const Model &model) {
    check_frame(frame, model);
    check_geometry(frame, model.metadata());
}

void check_geometry(const Frame &frame, const Metadata &metadata) {
    check_positions(frame);
    if (frame.velocities.defined())
        check_finite(frame.velocities, frame, "the velocity", "use a shorter time step or set the velocities anew");
    check_distances(frame);
    check_limits(frame, metadata.contract.limits);
}

void check_outputs(const Outputs &outputs, const Frame &frame) {
    for (const auto &[key, of_atom, values] : outputs.named())
        if (of_atom)
            check_finite(values, frame, of_atom,
                         "the structure is too far from the model's training data, or the model is broken");
}

double largest_magnitude(const at::Tensor &values) {
    if (values.numel() == 0)
        return 0;
    if (!values.is_cpu() || !values.is_contiguous())
        return values.abs().max().item<double>();
    return AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "largest_magnitude", [&] {
        const auto *const all = values.const_data_ptr<scalar_t>();
        scalar_t largest = 0;
        bool numbers = true;
        for (std::int64_t k = 0; k < values.numel(); k++) {
            largest = std::max(largest, std::abs(all[k]));
            numbers &= all[k] == all[k];
        }
        return numbers ? static_cast<double>(largest) : std::nan("");
    });
}

void check_finite(const at::Tensor &values, const Frame &frame, const char *what, const char *hint) {
    if (std::isfinite(largest_magnitude(values)))
        return;
    const at::Tensor bad = values.isfinite().logical_not();
    if (!bad.any().item<bool>())
        return;
    const at::Tensor rows = bad.dim() > 1 ? bad.any(1) : bad;
    const std::int64_t atom = rows.nonzero()[0].item<std::int64_t>();
    const std::int64_t count = rows.sum().item<std::int64_t>();
    C10_THROW_ERROR(ValueError,
                    c10::str(what, " of atom ", label(frame, atom), " is not finite",
                             count > 1 ? c10::str(" (", count, " atoms in all)") : std::string(), "; ", hint));
}

void check_stride(const at::Tensor &displacements, const at::Tensor &velocities, const Frame &frame,
                  const Metadata &metadata) {
    const double fastest = THROWN * metadata.contract.limits.fastest_atom, stride = metadata.stride_fs;
    if (fastest == 0 || displacements.size(0) == 0)
        return;
    const auto [farthest, mover] = at::linalg_vector_norm(displacements, 2, 1).max(0);
    const auto [speed, runner] = at::linalg_vector_norm(velocities, 2, 1).max(0);
    const char *const hint = "; the structure is too far from the model's training data, or the velocities are";
    TORCH_CHECK_VALUE(farthest.item<double>() <= fastest * stride, "atom ", label(frame, mover.item<std::int64_t>()),
                      " would move ", farthest.item<double>(), " A in a stride of ", stride, " fs; expected at most ",
                      fastest * stride, " A", hint);
    TORCH_CHECK_VALUE(speed.item<double>() <= fastest, "atom ", label(frame, runner.item<std::int64_t>()),
                      " would leave the stride at ", speed.item<double>() * METRES_PER_SECOND,
                      " m/s; expected at most ", fastest * METRES_PER_SECOND, " m/s", hint);
}

void check_positions(const Frame &frame) {
    check_finite(frame.positions, frame, "the position",
                 "the simulation has blown up or was set up wrong: minimise, or use a shorter time step");
}

std::optional<ClosePair> closer_than(const Frame &frame, double distance) {
    if (frame.edge_index.size(1) == 0)
        return {};
    std::int64_t edge = -1;
    double found = 0;
    if (frame.positions.is_cpu()) {
        AT_DISPATCH_FLOATING_TYPES(frame.positions.scalar_type(), "closer_than",
                                   [&] { edge = find_closer<scalar_t>(frame, distance); });
        if (edge < 0)
            return {};
        found = edge_lengths(frame)[edge].item<double>();
    } else {
        const auto [shortest, index] = edge_lengths(frame).min(0);
        found = shortest.item<double>();
        if (!(found < distance))
            return {};
        edge = index.item<std::int64_t>();
    }
    const auto end = [&](int row) { return label(frame, frame.edge_index[row][edge].item<std::int64_t>()); };
    return ClosePair{end(0), end(1), found};
}

void check_distances(const Frame &frame) {
    if (const auto pair = closer_than(frame, COINCIDENT))
        C10_THROW_ERROR(ValueError,
                        c10::str("atoms ", pair->first, " and ", pair->second, " are on top of each other (",
                                 pair->distance, " A apart); separate them"));
}

void check_limits(const Frame &frame, const Limits &limits) {
    const at::Tensor &velocities = frame.velocities;
    if (limits.fastest_atom > 0 && velocities.defined() && velocities.size(0) > 0) {
        const auto [fastest, atom] = velocities.norm(2, 1).max(0);
        TORCH_CHECK_VALUE(fastest.item<double>() < limits.fastest_atom, "atom ",
                          label(frame, atom.item<std::int64_t>()), " moves at ",
                          std::int64_t(fastest.item<double>() * METRES_PER_SECOND),
                          " m/s, faster than the model covers; expected below ",
                          std::int64_t(limits.fastest_atom * METRES_PER_SECOND),
                          " m/s; lower the temperature, or train with a larger max_speed");
    }
    if (limits.shortest_bond > 0 && frame.edge_index.size(1) > 0) {
        const auto [shortest, edge] = edge_lengths(frame).min(0);
        const at::Tensor ends = frame.edge_index.select(1, edge.item<std::int64_t>());
        TORCH_CHECK_VALUE(
            shortest.item<double>() >= limits.shortest_bond, "atoms ", label(frame, ends[0].item<std::int64_t>()),
            " and ", label(frame, ends[1].item<std::int64_t>()), " are ", std::int64_t(shortest.item<double>() * 100),
            " pm apart, closer than the model's tables reach; expected ", std::int64_t(limits.shortest_bond * 100),
            " pm or more; the simulation has blown up, or the model needs tables that start at a "
            "shorter length");
    }
}

} // namespace equistride
