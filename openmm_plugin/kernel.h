// The kernel that a platform may offer for an EquistrideForce; without one the force goes through host arrays.
#pragma once

#include "force.h"

#include <openmm/KernelImpl.h>
#include <openmm/internal/ContextImpl.h>

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

} // namespace equistride
