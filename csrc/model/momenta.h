// The motion of atoms as a whole, and what is left: the internal motion, which has a temperature.
#pragma once

#include "model/communicator.h"

#include <optional>

namespace equistride {

/// Atoms in motion: those of this process; float64.
struct State {
    at::Tensor positions;  ///< [n, 3] A
    at::Tensor velocities; ///< [n, 3] A/fs
};

/// What a stride changes; float64.
struct Stride {
    at::Tensor displacements; ///< [n, 3] A
    at::Tensor velocities;    ///< [n, 3] A/fs, after it
};

/// How a body of atoms can rotate about its centre of mass. About the axis of a linear molecule it cannot, nor can one
/// atom. As in equistride.models.propagator.angular_velocity, whose operations these are.
class Rotation {
public:
    /// @param arms  [n, 3] A, from the centre of mass of all processes' atoms
    Rotation(const at::Tensor &arms, const at::Tensor &masses, const Communicator &communicator);

    /// The angular velocity [1, 3] 1/fs that has the angular momentum `spin` [1, 3] amu A^2/fs.
    at::Tensor angular_velocity(const at::Tensor &spin) const;
    /// 3, or 2 where the atoms lie on a line, or 0 for one atom.
    std::int64_t degrees() const;

private:
    at::Tensor free_, stuck_, regular_;
};

/// The rigid motion of atoms at given positions: translation, and rotation where the system is open.
class EQUISTRIDE_API RigidMotion {
public:
    /// @param positions  [n, 3] A
    /// @param masses     [n, 1] amu
    /// @param conserves_angular_momentum      whether angular momentum is kept, as it is without a box
    RigidMotion(const at::Tensor &positions, const at::Tensor &masses, bool conserves_angular_momentum,
                const Communicator &communicator = Communicator::self());

    /// Velocities [n, 3] of the rigid body that has the momentum, and where it is to rotate the angular momentum, of
    /// `velocities`.
    at::Tensor part(const at::Tensor &velocities) const;
    /// 3, and 2 or 3 more where it is to rotate (none for one atom).
    std::int64_t degrees() const { return degrees_; }

private:
    const Communicator &communicator_;
    at::Tensor masses_, total_, arms_;
    std::optional<Rotation> rotation_;
    std::int64_t degrees_ = 3;
};

/// The stride with the momenta of before: the centre of mass moves on by its velocity, the velocities have its
/// momentum, and where it `conserves_angular_momentum` the angular momentum about it. On one process's CPU these are
/// the bits of equistride.models.propagator.Propagator.keep.
/// @param masses  [n, 1] amu
EQUISTRIDE_API Stride keep_momenta(const State &before, const Stride &stride, const at::Tensor &masses,
                                   double stride_fs, bool conserves_angular_momentum,
                                   const Communicator &communicator = Communicator::self());

/// The same by torch's operators and sums over processes: what keep_momenta() does where there are several, and on a
/// CPU.
EQUISTRIDE_API Stride keep_momenta_by_sums(const State &before, const Stride &stride, const at::Tensor &masses,
                                           double stride_fs, bool conserves_angular_momentum,
                                           const Communicator &communicator = Communicator::self());

/// Kinetic energy [eV] of all processes' `velocities` [n, 3] A/fs with `masses` [n, 1] amu.
EQUISTRIDE_API double kinetic_energy(const at::Tensor &velocities, const at::Tensor &masses,
                                     const Communicator &communicator = Communicator::self());

} // namespace equistride
