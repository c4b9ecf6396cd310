// The motion of atoms as a whole, and what is left: the internal motion, which has a temperature.
#pragma once

#include "visibility.h"

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace equistride {

/// Atoms in motion; float64 on the CPU.
struct State {
    at::Tensor positions;  ///< [N, 3] A
    at::Tensor velocities; ///< [N, 3] A/fs
};

/// The rigid motion of atoms at given positions: translation, and rotation where the system is open.
class EQUISTRIDE_API RigidMotion {
public:
    /// @param positions  [N, 3] A
    /// @param masses     [N, 1] amu
    /// @param conserves_angular_momentum      whether angular momentum is kept, as it is without a box
    RigidMotion(const at::Tensor &positions, const at::Tensor &masses, bool conserves_angular_momentum);

    /// Velocities [N, 3] of the rigid body that has the momentum, and where it is to rotate the angular momentum, of
    /// `velocities`.
    at::Tensor part(const at::Tensor &velocities) const;
    /// 3, and 2 or 3 more where it is to rotate (none for one atom).
    std::int64_t degrees() const { return degrees_; }

private:
    at::Tensor masses_, arms_, inverse_inertia_;
    double total_ = 0;
    std::int64_t degrees_ = 3;
};

/// Kinetic energy [eV] of `velocities` [N, 3] A/fs with `masses` [N, 1] amu.
EQUISTRIDE_API double kinetic_energy(const at::Tensor &velocities, const at::Tensor &masses);

} // namespace equistride
