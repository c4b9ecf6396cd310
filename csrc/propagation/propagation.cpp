#include "propagation/propagation.h"

#include "model/checks.h"

#include <ATen/ATen.h>

namespace equistride {

Propagation::Propagation(Evaluation &network, const Thermostat &thermostat, std::uint64_t seed,
                         const Communicator &communicator)
    : network_(network), communicator_(communicator), random_(seed) {
    set_thermostat(thermostat);
}

void Propagation::set_thermostat(const Thermostat &thermostat) {
    thermostat.check();
    thermostat_ = thermostat;
}

void Propagation::set_guard(const GuardSettings &settings, Evaluation &potential) {
    guard_.emplace(settings, Potential(potential, communicator_), stride_fs());
}

State Propagation::stride(const State &before, const Particles &particles) {
    const Outputs outputs = network_.compute({before.positions, before.velocities, particles.cell, particles.labels});
    const at::Tensor moved = outputs.displacements.to(at::kCPU, at::kDouble);
    const State after = {before.positions + moved, outputs.velocities.to(at::kCPU, at::kDouble)};
    network_.check();
    return after;
}

void Propagation::step(State &state, const Particles &particles, std::int64_t number) {
    together(communicator_, [&] {
        Frame frame;
        frame.positions = state.positions;
        frame.labels = particles.labels;
        check_positions(frame);
        check_finite(state.velocities, frame, "the velocity", "set the velocities anew");
    });
    const State before = state;
    const std::string memory = this->state();
    try {
        const double half = 0.5 * stride_fs();
        thermostat_.apply(state, particles, half, random_, communicator_);
        const auto network = [&] { return stride(state, particles); };
        state = guard_ ? guard_->stride(network, state, particles, {number, !thermostat_.active()}) : network();
        thermostat_.apply(state, particles, half, random_, communicator_);
    } catch (...) { // with another noise, a run that goes on would not be the unbroken one
        state = before;
        set_state(memory);
        throw;
    }
}

std::string Propagation::state() const {
    Checkpoint checkpoint;
    checkpoint.set("random", random_.state());
    if (guard_)
        guard_->save(checkpoint);
    return checkpoint.text();
}

void Propagation::set_state(const std::string &state) {
    const Checkpoint checkpoint(state);
    TORCH_CHECK_VALUE(guard_.has_value() == checkpoint.has("guard.strides"),
                      "the checkpoint does not fit this run: one of them has a guard, and the other has none; set the "
                      "run up as it was");
    if (guard_)
        guard_->load(checkpoint);
    random_ = SplitMix64::from_state(checkpoint.word("random"));
}

} // namespace equistride
