#include "model/momenta.h"

#include "equistride/units.h"
#include "model/rigid_body.h"
#include "operators.h"

#include <ATen/ATen.h>

namespace equistride {
namespace {

// The sum over this process's atoms, [n, ...] to [1, ...]; on the CPU in their order, as Python's index_add has it.
at::Tensor over_own(const at::Tensor &values) {
    if (!values.is_cpu())
        return values.sum(0, /*keepdim=*/true);
    std::vector<std::int64_t> shape = values.sizes().vec();
    shape[0] = 1;
    const at::Tensor frame = at::zeros({values.size(0)}, at::kLong);
    return at::zeros(shape, values.options()).index_add(0, frame, values);
}

at::Tensor over_atoms(const at::Tensor &values, const Communicator &communicator) {
    return communicator.sum(over_own(values));
}

// Sums [1, k] over all atoms of several values [n, k], in one message.
std::vector<at::Tensor> over_atoms(const std::vector<at::Tensor> &values, const Communicator &communicator) {
    std::vector<at::Tensor> sums;
    std::vector<std::int64_t> widths;
    for (const at::Tensor &each : values) {
        sums.push_back(over_own(each));
        widths.push_back(each.size(1));
    }
    return communicator.size() == 1 ? sums : communicator.sum(at::cat(sums, 1)).split_with_sizes(widths, 1);
}

at::Tensor times(const at::Tensor &matrices, const at::Tensor &vectors) {
    return at::matmul(matrices, vectors.unsqueeze(2)).select(2, 0);
}

} // namespace

Rotation::Rotation(const at::Tensor &arms, const at::Tensor &masses, const Communicator &communicator) {
    const at::Tensor square = arms.square().sum(1).unsqueeze(1).unsqueeze(2), identity = at::eye(3, arms.options());
    const at::Tensor outer = arms.unsqueeze(2) * arms.unsqueeze(1);
    const at::Tensor inertia = over_atoms(masses.unsqueeze(2) * (square * identity - outer), communicator);
    const auto [moments, axes] = at::linalg_eigh(inertia);
    const at::Tensor largest = moments.narrow(1, 2, 1).clamp_min(POINT);
    free_ = (moments > LINEAR * largest).to(arms.scalar_type());
    stuck_ = at::matmul(axes * (1.0 - free_).unsqueeze(1), axes.transpose(1, 2));
    regular_ = inertia + stuck_ * largest.unsqueeze(2);
}

at::Tensor Rotation::angular_velocity(const at::Tensor &spin) const {
    const at::Tensor wanted = spin - times(stuck_, spin);
    const at::Tensor omega = at::linalg_solve(regular_, wanted.unsqueeze(2)).select(2, 0);
    return omega - times(stuck_, omega);
}

std::int64_t Rotation::degrees() const { return static_cast<std::int64_t>(free_.sum().item<double>()); }

RigidMotion::RigidMotion(const at::Tensor &positions, const at::Tensor &masses, bool conserves_angular_momentum,
                         const Communicator &communicator)
    : communicator_(communicator), masses_(masses) {
    if (!conserves_angular_momentum) {
        total_ = over_atoms(masses, communicator);
        return;
    }
    const auto sums = over_atoms({masses, masses * positions}, communicator);
    total_ = sums[0];
    arms_ = positions - sums[1] / total_;
    rotation_.emplace(arms_, masses, communicator);
    degrees_ += rotation_->degrees();
}

at::Tensor RigidMotion::part(const at::Tensor &velocities) const {
    const at::Tensor momenta = masses_ * velocities;
    if (!rotation_)
        return (over_atoms(momenta, communicator_) / total_).expand_as(velocities);
    const auto sums = over_atoms({momenta, at::linalg_cross(arms_, momenta)}, communicator_);
    return sums[0] / total_ + at::linalg_cross(rotation_->angular_velocity(sums[1]).expand_as(arms_), arms_);
}

Stride keep_momenta(const State &before, const Stride &stride, const at::Tensor &masses, double stride_fs,
                    bool conserves_angular_momentum, const Communicator &communicator) {
    if (communicator.size() > 1)
        return keep_momenta_by_sums(before, stride, masses, stride_fs, conserves_angular_momentum, communicator);
    using Signature = std::tuple<at::Tensor, at::Tensor>(const at::Tensor &, const at::Tensor &, const at::Tensor &,
                                                         const at::Tensor &, const at::Tensor &, double, bool);
    static const auto op = find_operator<Signature>("equistride::keep_momenta");
    const auto [displacements, velocities] = op.call(before.positions, before.velocities, stride.displacements,
                                                     stride.velocities, masses, stride_fs, conserves_angular_momentum);
    return {displacements, velocities};
}

Stride keep_momenta_by_sums(const State &before, const Stride &stride, const at::Tensor &masses, double stride_fs,
                            bool conserves_angular_momentum, const Communicator &communicator) {
    const auto sums = over_atoms({masses, masses * before.velocities, masses * stride.displacements,
                                  masses * stride.velocities, masses * before.positions},
                                 communicator);
    const at::Tensor &total = sums[0], drift = sums[1] / total;
    Stride kept;
    kept.displacements = stride.displacements + (drift * stride_fs - sums[2] / total);
    kept.velocities = stride.velocities + (drift - sums[3] / total);
    if (!conserves_angular_momentum)
        return kept;
    const auto spin = [&](const at::Tensor &arms, const at::Tensor &velocities) {
        return at::linalg_cross(arms, masses * velocities);
    };
    const at::Tensor after = before.positions + kept.displacements;
    const at::Tensor arms = after - over_atoms(masses * after, communicator) / total;
    const auto spins = over_atoms(
        {spin(before.positions - sums[4] / total, before.velocities), spin(arms, kept.velocities)}, communicator);
    const at::Tensor omega = Rotation(arms, masses, communicator).angular_velocity(spins[0] - spins[1]);
    kept.velocities = kept.velocities + at::linalg_cross(omega.expand_as(arms), arms);
    return kept;
}

double kinetic_energy(const at::Tensor &velocities, const at::Tensor &masses, const Communicator &communicator) {
    return communicator.sum(0.5 * units::EV_PER_KINETIC * (masses * velocities.square()).sum().item<double>());
}

} // namespace equistride
