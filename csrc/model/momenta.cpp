#include "model/momenta.h"

#include "equistride/units.h"

#include <ATen/ATen.h>

namespace equistride {
namespace {

// Of equistride.models.propagator: below this share of the largest, a moment of inertia [amu A^2] is that of an axis on
// which all atoms lie; below POINT the largest is that of one atom.
constexpr double LINEAR = 1e-4, POINT = 1e-6;

// The sum over all atoms, [n, ...] to [1, ...]; on the CPU in the order of the atoms, as Python's index_add has it.
at::Tensor over_atoms(const at::Tensor &values, const Communicator &communicator) {
    if (!values.is_cpu())
        return communicator.sum(values.sum(0, /*keepdim=*/true));
    std::vector<std::int64_t> shape = values.sizes().vec();
    shape[0] = 1;
    const at::Tensor frame = at::zeros({values.size(0)}, at::kLong);
    return communicator.sum(at::zeros(shape, values.options()).index_add(0, frame, values));
}

at::Tensor angular_momentum(const at::Tensor &arms, const at::Tensor &velocities, const at::Tensor &masses,
                            const Communicator &communicator) {
    return over_atoms(at::linalg_cross(arms, masses * velocities), communicator);
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
    : communicator_(communicator), masses_(masses), total_(over_atoms(masses, communicator)) {
    if (!conserves_angular_momentum)
        return;
    arms_ = positions - over_atoms(masses * positions, communicator) / total_;
    rotation_.emplace(arms_, masses, communicator);
    degrees_ += rotation_->degrees();
}

at::Tensor RigidMotion::part(const at::Tensor &velocities) const {
    const at::Tensor drift = over_atoms(masses_ * velocities, communicator_) / total_;
    if (!rotation_)
        return drift.expand_as(velocities);
    const at::Tensor omega = rotation_->angular_velocity(angular_momentum(arms_, velocities, masses_, communicator_));
    return drift + at::linalg_cross(omega.expand_as(arms_), arms_);
}

Stride keep_momenta(const State &before, const Stride &stride, const at::Tensor &masses, double stride_fs,
                    bool conserves_angular_momentum, const Communicator &communicator) {
    const at::Tensor total = over_atoms(masses, communicator);
    const auto mean = [&](const at::Tensor &values) { return over_atoms(masses * values, communicator) / total; };
    const at::Tensor drift = mean(before.velocities);
    Stride kept;
    kept.displacements = stride.displacements + (drift * stride_fs - mean(stride.displacements));
    kept.velocities = stride.velocities + (drift - mean(stride.velocities));
    if (!conserves_angular_momentum)
        return kept;
    const at::Tensor spin =
        angular_momentum(before.positions - mean(before.positions), before.velocities, masses, communicator);
    const at::Tensor after = before.positions + kept.displacements, arms = after - mean(after);
    const at::Tensor missing = spin - angular_momentum(arms, kept.velocities, masses, communicator);
    const at::Tensor omega = Rotation(arms, masses, communicator).angular_velocity(missing);
    kept.velocities = kept.velocities + at::linalg_cross(omega.expand_as(arms), arms);
    return kept;
}

double kinetic_energy(const at::Tensor &velocities, const at::Tensor &masses, const Communicator &communicator) {
    return communicator.sum(0.5 * units::EV_PER_KINETIC * (masses * velocities.square()).sum().item<double>());
}

} // namespace equistride
