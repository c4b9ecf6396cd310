// Thermostats for half-steps around a stride. They act on the internal motion alone, so that momentum, and in open
// systems angular momentum, stay.
#pragma once

#include "propagation/particles.h"
#include "propagation/rescaling.h"

#include <string>

namespace equistride {

/// 1 / friction of "langevin+csvr" in strides, where nothing else is asked for.
inline constexpr double FRICTION_STRIDES = 15.0;

/// What a half-step does, in numbers.
struct HalfStep {
    double friction = 1;  ///< factor of friction on the internal motion, 1 for none
    double rescaling = 1; ///< exp(-dt / tau) of csvr, 1 for none
    double thermal = 0;   ///< Boltzmann's constant times the temperature, amu A^2/fs^2
};

struct EQUISTRIDE_API Thermostat {
    /// "none"; "csvr", velocity rescaling (Bussi 2007); "langevin", friction and noise; "langevin+csvr", both: weak
    /// friction keeps all vibrations at one temperature, rescaling keeps that temperature where it should be.
    std::string kind;
    double temperature = 0; ///< K
    double time = 0;        ///< fs: tau of csvr, 1 / friction of langevin
    double tau = 0;         ///< fs: tau of csvr beside langevin

    bool rescales() const { return kind == "csvr" || kind == "langevin+csvr"; }
    bool has_friction() const { return kind == "langevin" || kind == "langevin+csvr"; }

    bool active() const { return kind != "none"; }
    /// Raises c10::ValueError for an unknown kind and for numbers that make no sense.
    void check() const;
    /// For the time `dt` [fs].
    HalfStep half_step(double dt) const;
    /// Act on the velocities for the time `dt` [fs]. `draws` are the same on all processes, and stay so.
    void apply(State &state, const Particles &particles, double dt, Draws &draws,
               const Communicator &communicator) const;
};

/// Velocities [n, 3] after a half-step.
EQUISTRIDE_API at::Tensor thermalized(const State &state, const Particles &particles, const HalfStep &numbers,
                                      const Draw &draw, const Communicator &communicator = Communicator::self());

/// Velocities [n, 3] of the given temperature [K]: Maxwell's distribution of the internal motion, scaled to the
/// temperature exactly, without momentum, and where it is conserved without angular momentum.
EQUISTRIDE_API at::Tensor thermal_velocities(const at::Tensor &positions, const Particles &particles,
                                             double temperature, const Draw &draw,
                                             const Communicator &communicator = Communicator::self());

} // namespace equistride
