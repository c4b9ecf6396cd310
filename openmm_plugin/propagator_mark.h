// What a System that was made for a propagator holds in place of forces.
#pragma once

#include "export.h"

#include <openmm/Force.h>

namespace equistride {

/// No force at all: without it any other integrator would let the atoms fly on in straight lines. Making a Context
/// raises OpenMM::OpenMMException where neither a TrajCastIntegrator nor a force moves the System.
class EQUISTRIDE_OPENMM_API PropagatorMark : public OpenMM::Force {
public:
    PropagatorMark() { setName("PropagatorMark"); }
    bool usesPeriodicBoundaryConditions() const override { return false; }

protected:
    OpenMM::ForceImpl *createImpl() const override;
};

} // namespace equistride
