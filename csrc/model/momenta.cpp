#include "model/momenta.h"

#include "equistride/units.h"

#include <ATen/ATen.h>

namespace equistride {
namespace {

// As in equistride.models.propagator: below this share of the largest, a moment of inertia [amu A^2] is that of an axis
// on which all atoms lie; below POINT it is that of one atom.
constexpr double LINEAR = 1e-4, POINT = 1e-6;

} // namespace

RigidMotion::RigidMotion(const at::Tensor &positions, const at::Tensor &masses, bool conserves_angular_momentum)
    : masses_(masses), total_(masses.sum().item<double>()) {
    if (!conserves_angular_momentum)
        return;
    arms_ = positions - (masses * positions).sum(0, /*keepdim=*/true) / total_;
    const at::Tensor identity = at::eye(3, positions.options());
    const at::Tensor inertia = (masses * arms_.square()).sum() * identity - (masses * arms_).t().matmul(arms_);
    const auto [moments, axes] = at::linalg_eigh(inertia);
    const double limit = std::max(LINEAR * moments[2].item<double>(), POINT);
    const at::Tensor free = moments > limit;
    inverse_inertia_ = axes.matmul((free / moments.where(free, at::ones_like(moments))).diag()).matmul(axes.t());
    degrees_ += free.sum().item<std::int64_t>();
}

at::Tensor RigidMotion::part(const at::Tensor &velocities) const {
    at::Tensor rigid = ((masses_ * velocities).sum(0, /*keepdim=*/true) / total_).expand_as(velocities);
    if (arms_.defined()) {
        const at::Tensor spin = at::linalg_cross(arms_, masses_ * velocities).sum(0);
        rigid = rigid + at::linalg_cross(inverse_inertia_.matmul(spin).expand_as(arms_), arms_);
    }
    return rigid;
}

double kinetic_energy(const at::Tensor &velocities, const at::Tensor &masses) {
    return 0.5 * units::EV_PER_KINETIC * (masses * velocities.square()).sum().item<double>();
}

} // namespace equistride
