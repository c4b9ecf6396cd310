#include "system_checks.h"

#include "propagator_mark.h"

#include <openmm/AndersenThermostat.h>
#include <openmm/CMMotionRemover.h>
#include <openmm/MonteCarloAnisotropicBarostat.h>
#include <openmm/MonteCarloBarostat.h>
#include <openmm/MonteCarloFlexibleBarostat.h>
#include <openmm/MonteCarloMembraneBarostat.h>
#include <openmm/OpenMMException.h>
#include <openmm/System.h>
#include <openmm/Vec3.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_set>

using OpenMM::Force;
using OpenMM::OpenMMException;

namespace equistride {
namespace {

template <typename... Kinds> bool is_one_of(const Force &force) {
    return (... || (dynamic_cast<const Kinds *>(&force) != nullptr));
}

void check_particles(const OpenMM::System &system) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(system.getNumParticles()));
    std::iota(all.begin(), all.end(), 0);
    check_unconstrained(
        system, all, "and a propagator moves free atoms; make the System with constraints=None and rigidWater=False");
    for (int i = 0; i < system.getNumParticles(); i++) {
        if (system.isVirtualSite(i))
            throw OpenMMException("particle " + std::to_string(i) +
                                  " is a virtual site, which a propagator of atoms cannot move; make the System "
                                  "without virtual sites");
        if (system.getParticleMass(i) == 0)
            throw OpenMMException("particle " + std::to_string(i) +
                                  " has no mass, which fixes it in OpenMM, and a propagator moves all atoms; give it "
                                  "the mass of its element");
    }
}

void check_force(const Force &force, bool thermostat, int groups) {
    const std::string name = "the force " + force.getName();
    if (is_one_of<OpenMM::MonteCarloBarostat, OpenMM::MonteCarloAnisotropicBarostat, OpenMM::MonteCarloFlexibleBarostat,
                  OpenMM::MonteCarloMembraneBarostat>(force))
        throw OpenMMException(name + " is a barostat that goes by the energy of a System's forces, and a propagator "
                                     "has none; take it out of the System, and "
                                     "give TrajCastIntegrator a guard and barostat=Barostat(...)");
    if (is_one_of<OpenMM::CMMotionRemover, PropagatorMark>(force))
        return;
    if (is_one_of<OpenMM::AndersenThermostat>(force)) {
        if (thermostat)
            throw OpenMMException(name + " is a second thermostat; take it out, or use thermostat=None");
        return;
    }
    if ((groups & (1 << force.getForceGroup())) != 0)
        throw OpenMMException(name +
                              " would do nothing: the network alone moves the atoms; take it out of the System, or "
                              "say with ignore_forces=True that it only reports energies");
}

} // namespace

bool has_forces(const OpenMM::System &system) {
    for (int i = 0; i < system.getNumForces(); i++)
        if (!is_one_of<OpenMM::CMMotionRemover, OpenMM::AndersenThermostat, PropagatorMark>(system.getForce(i)))
            return true;
    return false;
}

void check_unconstrained(const OpenMM::System &system, const std::vector<std::int64_t> &particles,
                         const std::string &reason) {
    const std::unordered_set<std::int64_t> chosen(particles.begin(), particles.end());
    for (int k = 0; k < system.getNumConstraints(); k++) {
        int first = 0, second = 0;
        double distance = 0;
        system.getConstraintParameters(k, first, second, distance);
        if (chosen.contains(first) || chosen.contains(second))
            throw OpenMMException("the distance between particles " + std::to_string(first) + " and " +
                                  std::to_string(second) + " is constrained, " + reason);
    }
}

void check_box_was_set(const OpenMM::System &system, const std::vector<OpenMM::Vec3> &topology) {
    const OpenMM::Vec3 unset[] = {{2, 0, 0}, {0, 2, 0}, {0, 0, 2}}; // nm, of a System that was just made
    OpenMM::Vec3 found[3];
    system.getDefaultPeriodicBoxVectors(found[0], found[1], found[2]);
    double difference = 0;
    for (std::size_t i = 0; i < 3; i++) {
        if (found[i] != unset[i])
            return;
        const OpenMM::Vec3 apart = topology.at(i) - unset[i];
        difference = std::max(difference, std::sqrt(apart.dot(apart)));
    }
    if (difference > 1e-3)
        throw OpenMMException("the System has the box that OpenMM gives where none is set, 2 nm wide, and its topology "
                              "has another; call "
                              "system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())");
}

void check_propagated_system(const OpenMM::System &system, bool thermostat, int groups) {
    if (system.getNumParticles() == 0)
        throw OpenMMException("the System has no particles");
    check_particles(system);
    for (int i = 0; i < system.getNumForces(); i++)
        check_force(system.getForce(i), thermostat, groups);
}

} // namespace equistride
