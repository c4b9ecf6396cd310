// The factor of velocity rescaling. Host and device.
#pragma once

#include "propagation/random.h"

namespace equistride {

/// The factor of csvr on velocities with `degrees` of freedom (Bussi, Donadio, Parrinello 2007, eq. A7 and A8).
/// @param square   sum of m v^2
/// @param thermal  Boltzmann's constant times the temperature, in the same units
/// @param c1       exp(-dt / tau)
EQUISTRIDE_HD inline double csvr_factor(double square, double degrees, double thermal, double c1, Noise noise) {
    const double share = (1.0 - c1) * thermal / square, r1 = noise.normal();
    const double rest = degrees > 1.0 ? 2.0 * noise.gamma(0.5 * (degrees - 1.0)) : 0.0;
    return std::copysign(std::sqrt(c1 + share * (r1 * r1 + rest) + 2.0 * r1 * std::sqrt(c1 * share)),
                         r1 + std::sqrt(c1 / share));
}

} // namespace equistride
