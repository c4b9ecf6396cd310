#include "propagation/thermostat.h"

#include "equistride/units.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <random>

namespace equistride {
namespace {

// Maxwell's distribution of the internal motion: the noise, less its rigid part.
at::Tensor thermal_noise(const at::Tensor &masses, const RigidMotion &rigid, double temperature, SplitMix64 &random) {
    at::Tensor noise = at::empty({masses.size(0), 3}, at::kDouble);
    std::normal_distribution<double> normal;
    double *x = noise.mutable_data_ptr<double>();
    for (std::int64_t k = 0; k < noise.numel(); k++)
        x[k] = normal(random);
    noise = noise * (units::BOLTZMANN * temperature / units::EV_PER_KINETIC / masses).sqrt();
    return noise - rigid.part(noise);
}

} // namespace

double csvr_factor(double kinetic, double degrees, double temperature, double c1, SplitMix64 &random) {
    const double share = (1.0 - c1) * 0.5 * units::BOLTZMANN * temperature / kinetic;
    const double r1 = std::normal_distribution<double>()(random);
    const double rest = degrees > 1.0 ? std::gamma_distribution<double>(0.5 * (degrees - 1.0), 2.0)(random) : 0.0;
    const double square = c1 + share * (r1 * r1 + rest) + 2.0 * r1 * std::sqrt(c1 * share);
    return std::copysign(std::sqrt(square), r1 + std::sqrt(c1 / share));
}

void Thermostat::check() const {
    TORCH_CHECK_VALUE(kind == "none" || rescales() || has_friction(),
                      "the thermostat is not known; expected csvr, langevin, langevin+csvr or none; found '", kind,
                      "'");
    if (!active())
        return;
    TORCH_CHECK_VALUE(std::isfinite(temperature) && temperature > 0,
                      "the temperature of a thermostat makes no sense; expected more than 0 K; found ", temperature);
    for (const double each : {time, rescales() && has_friction() ? tau : time})
        TORCH_CHECK_VALUE(std::isfinite(each) && each > 0,
                          "the relaxation time of a thermostat makes no sense; expected more than 0 fs; found ", each,
                          " fs; check tau or friction");
}

void Thermostat::apply(State &state, const at::Tensor &masses, bool conserves_angular_momentum, double dt,
                       SplitMix64 &random) const {
    if (!active())
        return;
    const RigidMotion rigid(state.positions, masses, conserves_angular_momentum);
    const auto degrees = static_cast<double>(state.positions.numel() - rigid.degrees());
    if (degrees <= 0)
        return;
    const at::Tensor whole = rigid.part(state.velocities);
    const auto decay = [dt](double t) { return std::exp(-dt / t); };
    at::Tensor internal = state.velocities - whole;
    if (has_friction()) {
        const double c1 = decay(time);
        internal = c1 * internal + std::sqrt(1.0 - c1 * c1) * thermal_noise(masses, rigid, temperature, random);
    }
    if (rescales()) {
        const double kinetic = kinetic_energy(internal, masses);
        TORCH_CHECK_VALUE(kinetic > 0,
                          "the atoms are at rest, and velocities of 0 cannot be rescaled to a temperature; "
                          "give them velocities of the temperature first");
        const double c1 = decay(has_friction() ? tau : time);
        internal = csvr_factor(kinetic, degrees, temperature, c1, random) * internal;
    }
    state.velocities = whole + internal;
}

at::Tensor thermal_velocities(const at::Tensor &positions, const at::Tensor &masses, bool conserves_angular_momentum,
                              double temperature, SplitMix64 &random) {
    const RigidMotion rigid(positions, masses, conserves_angular_momentum);
    const auto degrees = static_cast<double>(positions.numel() - rigid.degrees());
    const at::Tensor noise = thermal_noise(masses, rigid, temperature, random);
    const double kinetic = kinetic_energy(noise, masses);
    if (degrees <= 0 || kinetic <= 0)
        return at::zeros_like(positions);
    return noise * std::sqrt(0.5 * degrees * units::BOLTZMANN * temperature / kinetic);
}

} // namespace equistride
