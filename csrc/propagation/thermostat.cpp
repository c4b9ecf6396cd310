#include "propagation/thermostat.h"

#include "equistride/units.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <random>

namespace equistride {
namespace {

// Maxwell's distribution of the internal motion: the noise, less its rigid part. An atom's noise is that of its ID and
// of one draw for all, so it depends neither on the processes nor on the order of the atoms.
at::Tensor thermal_noise(const Particles &particles, const RigidMotion &rigid, double temperature, SplitMix64 &random) {
    constexpr std::uint64_t SPREAD = 0xd1342543de82ef95;
    const std::uint64_t draw = random();
    at::Tensor noise = at::empty({particles.masses.size(0), 3}, at::kDouble);
    double *x = noise.mutable_data_ptr<double>();
    for (const std::int64_t id : particles.ids) {
        SplitMix64 own(draw ^ (static_cast<std::uint64_t>(id) * SPREAD));
        std::normal_distribution<double> normal;
        for (int k = 0; k < 3; k++)
            *x++ = normal(own);
    }
    noise = noise * (units::BOLTZMANN * temperature / units::EV_PER_KINETIC / particles.masses).sqrt();
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

void Thermostat::apply(State &state, const Particles &particles, double dt, SplitMix64 &random,
                       const Communicator &communicator) const {
    if (!active())
        return;
    const RigidMotion rigid(state.positions, particles.masses, particles.conserves_angular_momentum, communicator);
    const double degrees = particles.degrees_of_freedom(rigid);
    if (degrees <= 0)
        return;
    const at::Tensor whole = rigid.part(state.velocities);
    const auto decay = [dt](double t) { return std::exp(-dt / t); };
    at::Tensor internal = state.velocities - whole;
    if (has_friction()) {
        const double c1 = decay(time);
        internal = c1 * internal + std::sqrt(1.0 - c1 * c1) * thermal_noise(particles, rigid, temperature, random);
    }
    if (rescales()) {
        const double kinetic = kinetic_energy(internal, particles.masses, communicator);
        TORCH_CHECK_VALUE(kinetic > 0,
                          "the atoms are at rest, and velocities of 0 cannot be rescaled to a temperature; "
                          "give them velocities of the temperature first");
        const double c1 = decay(has_friction() ? tau : time);
        internal = communicator.same(csvr_factor(kinetic, degrees, temperature, c1, random)) * internal;
    }
    state.velocities = whole + internal;
}

at::Tensor thermal_velocities(const at::Tensor &positions, const Particles &particles, double temperature,
                              SplitMix64 &random, const Communicator &communicator) {
    const RigidMotion rigid(positions, particles.masses, particles.conserves_angular_momentum, communicator);
    const double degrees = particles.degrees_of_freedom(rigid);
    const at::Tensor noise = thermal_noise(particles, rigid, temperature, random);
    const double kinetic = kinetic_energy(noise, particles.masses, communicator);
    if (degrees <= 0 || kinetic <= 0)
        return at::zeros_like(positions);
    return noise * std::sqrt(0.5 * degrees * units::BOLTZMANN * temperature / kinetic);
}

} // namespace equistride
