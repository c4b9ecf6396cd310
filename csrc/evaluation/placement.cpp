#include "evaluation/placement.h"

#include "evaluation/box.h"
#include "model/checks.h"

#include <ATen/ATen.h>

namespace equistride {
namespace {

// A: a position in double precision that is farther has no digits of a bond left once it is moved home.
constexpr double FARTHEST = 1e9;

void check_reach(const Frame &frame) {
    const double farthest = largest_magnitude(frame.positions);
    if (farthest <= FARTHEST)
        return;
    const auto row = frame.positions.abs().argmax().item<std::int64_t>() / 3;
    TORCH_CHECK_VALUE(false, "the position of atom ",
                      frame.labels ? (*frame.labels)[static_cast<std::size_t>(row)] : row, " is ", farthest,
                      " A from the origin; expected at most ", FARTHEST,
                      " A, where positions still have digits; the simulation has blown up, or set the position anew");
}

} // namespace

Placement::Placement(const Model &model, const at::Tensor &pbc) : model_(model) {
    const at::Tensor axes = pbc.to(at::kCPU);
    for (int k = 0; k < 3; k++) {
        periodic_[k] = axes[k].item<bool>();
        open_ &= !periodic_[k];
    }
}

at::Tensor Placement::lattice(const at::Tensor &cell, std::int64_t atoms) const {
    if (open_)
        return at::eye(3, at::kDouble);
    at::Tensor rows = cell.defined() ? cell.to(at::kCPU, at::kDouble).clone() : at::zeros({3, 3}, at::kDouble);
    for (int k = 0; k < 3; k++)
        if (!periodic_[k])
            rows[k].zero_();
    check_box(rows, atoms, model_.metadata());
    // along an open axis: what is at right angles to the others
    for (int k = 0; k < 3; k++) {
        if (periodic_[k])
            continue;
        const at::Tensor &a = rows[(k + 1) % 3], &b = rows[(k + 2) % 3];
        at::Tensor direction = at::linalg_cross(a, b);
        for (int axis = k; direction.norm().item<double>() == 0; axis = (axis + 1) % 3) {
            direction = at::zeros({3}, at::kDouble);
            direction[axis] = 1;
            for (const at::Tensor &other : {a, b}) // at most one of them has a length
                if (const double square = other.dot(other).item<double>(); square > 0)
                    direction = direction - other * (direction.dot(other).item<double>() / square);
        }
        rows[k] = direction / direction.norm();
    }
    return rows;
}

at::Tensor Placement::inverse_of(const at::Tensor &lattice) { return std::get<0>(at::linalg_inv_ex(lattice)); }

at::Tensor Placement::near_origin(const at::Tensor &positions, const at::Tensor &lattice,
                                  const at::Tensor &inverse) const {
    const bool rounds = model_.dtype() != at::kDouble;
    if (open_)
        return rounds ? positions - positions.mean(0, /*keepdim=*/true) : positions;
    // no matrix products, whose factors torch may round
    const auto columns = positions.unsqueeze(2).unbind(1);
    const at::Tensor fractions = columns[0] * inverse[0] + columns[1] * inverse[1] + columns[2] * inverse[2];
    at::Tensor placed = positions;
    for (int k = 0; k < 3; k++)
        if (periodic_[k])
            placed = placed - fractions.narrow(1, k, 1).floor() * lattice[k];
        else if (rounds)
            placed = placed - fractions.narrow(1, k, 1).mean(0, /*keepdim=*/true) * lattice[k];
    return placed;
}

Frame Placement::place(const Coordinates &now, const at::Tensor &species) const {
    const auto real = at::TensorOptions().device(model_.device()).dtype(model_.input_dtype());
    Frame frame;
    frame.labels = now.labels;
    frame.species = species;
    frame.positions = now.positions.to(model_.device(), at::kDouble);
    check_positions(frame);
    check_reach(frame);
    frame.cell = (now.cell.defined() ? now.cell : at::zeros({3, 3}, at::kDouble)).to(real);
    if (now.velocities.defined())
        frame.velocities = now.velocities.to(real);
    const at::Tensor rows = open_ ? at::Tensor() : lattice(now.cell, species.size(0));
    if (model_.metadata().is_potential()) {
        const auto home = frame.positions.options();
        if (open_)
            frame.positions = near_origin(frame.positions, {}, {});
        else if (const at::Tensor inverse = inverse_of(rows); inverse.isfinite().all().item<bool>())
            frame.positions = near_origin(frame.positions, rows.to(home), inverse.to(home));
        frame.positions = frame.positions.to(real);
    }
    return frame;
}

} // namespace equistride
