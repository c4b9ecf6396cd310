// Thermostats for half-steps around a stride. They act on the internal motion alone, so that momentum, and in open
// systems angular momentum, stay.
#pragma once

#include "propagation/particles.h"
#include "propagation/random.h"

#include <string>

namespace equistride {

/// 1 / friction of "langevin+csvr" in strides, where nothing else is asked for.
inline constexpr double FRICTION_STRIDES = 15.0;

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
    /// Act on the velocities for the time `dt` [fs]. `random` is the same on all processes, and stays so.
    void apply(State &state, const Particles &particles, double dt, SplitMix64 &random,
               const Communicator &communicator) const;
};

/// The factor of csvr on velocities of kinetic energy `kinetic` [eV] with `degrees` of freedom (Bussi, Donadio,
/// Parrinello 2007, eq. A7 and A8); `c1` is exp(-dt / tau).
EQUISTRIDE_API double csvr_factor(double kinetic, double degrees, double temperature, double c1, SplitMix64 &random);

/// Velocities [n, 3] of the given temperature [K]: Maxwell's distribution of the internal motion, scaled to the
/// temperature exactly, without momentum, and where it is conserved without angular momentum.
EQUISTRIDE_API at::Tensor thermal_velocities(const at::Tensor &positions, const Particles &particles,
                                             double temperature, SplitMix64 &random,
                                             const Communicator &communicator = Communicator::self());

} // namespace equistride
