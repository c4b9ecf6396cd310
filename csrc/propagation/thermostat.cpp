#include "propagation/thermostat.h"

#include "equistride/units.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <cmath>

namespace equistride {
namespace {

// Maxwell's distribution of the internal motion: the noise, less its rigid part.
at::Tensor thermal_noise(const Particles &particles, const RigidMotion &rigid, double thermal, const Draw &draw) {
    at::Tensor noise = at::empty({particles.masses.size(0), 3}, at::kDouble);
    double *x = noise.mutable_data_ptr<double>();
    for (const std::int64_t id : particles.ids) {
        Noise own = draw.of(static_cast<std::uint64_t>(id));
        for (int k = 0; k < 3; k++)
            *x++ = own.normal();
    }
    noise = noise * (thermal / particles.masses).sqrt();
    return noise - rigid.part(noise);
}

double thermal_of(double temperature) { return units::BOLTZMANN * temperature / units::EV_PER_KINETIC; }

} // namespace

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

HalfStep Thermostat::half_step(double dt) const {
    const auto decay = [dt](double t) { return std::exp(-dt / t); };
    return {has_friction() ? decay(time) : 1.0, rescales() ? decay(has_friction() ? tau : time) : 1.0,
            active() ? thermal_of(temperature) : 0.0};
}

void Thermostat::apply(State &state, const Particles &particles, double dt, Draws &draws,
                       const Communicator &communicator) const {
    if (active())
        state.velocities = thermalized(state, particles, half_step(dt), draws.next(), communicator);
}

at::Tensor thermalized(const State &state, const Particles &particles, const HalfStep &numbers, const Draw &draw,
                       const Communicator &communicator) {
    const RigidMotion rigid(state.positions, particles.masses, particles.conserves_angular_momentum, communicator);
    const double degrees = particles.degrees_of_freedom(rigid), friction = numbers.friction;
    if (degrees <= 0)
        return state.velocities;
    const at::Tensor whole = rigid.part(state.velocities);
    at::Tensor internal = state.velocities - whole;
    if (friction < 1)
        internal = friction * internal +
                   std::sqrt(1.0 - friction * friction) * thermal_noise(particles, rigid, numbers.thermal, draw);
    if (numbers.rescaling < 1) {
        const double square = kinetic_energy(internal, particles.masses, communicator) / (0.5 * units::EV_PER_KINETIC);
        TORCH_CHECK_VALUE(square > 0, "the atoms are at rest, and velocities of 0 cannot be rescaled to a temperature; "
                                      "give them velocities of the temperature first");
        internal =
            communicator.same(csvr_factor(square, degrees, numbers.thermal, numbers.rescaling, draw.of(0))) * internal;
    }
    return whole + internal;
}

at::Tensor thermal_velocities(const at::Tensor &positions, const Particles &particles, double temperature,
                              const Draw &draw, const Communicator &communicator) {
    const RigidMotion rigid(positions, particles.masses, particles.conserves_angular_momentum, communicator);
    const double degrees = particles.degrees_of_freedom(rigid);
    const at::Tensor noise = thermal_noise(particles, rigid, thermal_of(temperature), draw);
    const double kinetic = kinetic_energy(noise, particles.masses, communicator);
    if (degrees <= 0 || kinetic <= 0)
        return at::zeros_like(positions);
    return noise * std::sqrt(0.5 * degrees * units::BOLTZMANN * temperature / kinetic);
}

} // namespace equistride
