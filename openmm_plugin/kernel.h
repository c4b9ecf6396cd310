// The kernels that a platform may offer; without them forces and strides go through host arrays.
#pragma once

#include "force.h"
#include "model/momenta.h"

#include <openmm/KernelImpl.h>
#include <openmm/internal/ContextImpl.h>

#include <functional>

namespace equistride {

class CalcEquistrideForceKernel : public OpenMM::KernelImpl {
public:
    static std::string Name() { return "CalcEquistrideForce"; }
    CalcEquistrideForceKernel(const std::string &name, const OpenMM::Platform &platform) : KernelImpl(name, platform) {}

    /// `particles`: indices of the particles that the model sees, never empty.
    virtual void initialize(OpenMM::ContextImpl &context, const EquistrideForce &force,
                            const std::vector<std::int64_t> &particles) = 0;
    /// Adds the forces on the platform and returns the energy [kJ/mol].
    virtual double execute(OpenMM::ContextImpl &context, bool includeForces, bool includeEnergy) = 0;
};

/// Lets a propagator move the atoms where the platform has them.
class MoveAtomsKernel : public OpenMM::KernelImpl {
public:
    static std::string Name() { return "EquistrideMoveAtoms"; }
    MoveAtomsKernel(const std::string &name, const OpenMM::Platform &platform) : KernelImpl(name, platform) {}

    virtual void initialize(OpenMM::ContextImpl &context) = 0;
    /// Where states lie.
    virtual at::Device device() const = 0;
    /// Call `change` with all particles' state, A and A/fs, and write back what it makes of it; nothing where it
    /// raises. What is to be written may still be under way.
    virtual void move(OpenMM::ContextImpl &context, const std::function<void(State &)> &change) = 0;
};

} // namespace equistride
