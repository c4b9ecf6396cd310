#include "propagation/propagation.h"

#include "model/checks.h"

#include <ATen/ATen.h>

namespace equistride {
namespace {

void check_barostat(bool barostat, bool thermostat) {
    TORCH_CHECK_VALUE(!barostat || thermostat, "a barostat needs the temperature of a thermostat; give one");
}

} // namespace

Propagation::Propagation(Evaluation &network, const Thermostat &thermostat, std::uint64_t seed,
                         const Communicator &communicator)
    : network_(network), communicator_(communicator), draws_{seed} {
    set_thermostat(thermostat);
    set_stride(stride_fs());
}

void Propagation::set_stride(double stride_fs) {
    Model &model = network_.model();
    const auto index = model.metadata().stride_index(stride_fs);
    if (on_device_ && index != draws_.series)
        on_device_->finish(); // the first step of a stride is captured, which forgets what the one before it found
    model.set_stride(stride_fs);
    draws_.series = *index; // there is one, or it had raised
}

void Propagation::set_thermostat(const Thermostat &thermostat) {
    thermostat.check();
    check_barostat(barostat_.has_value(), thermostat.active());
    const bool other = thermostat.active() != thermostat_.active();
    thermostat_ = thermostat;
    if (other)
        arrange();
}

void Propagation::set_guard(const GuardSettings &settings, Evaluation &potential) {
    guard_.emplace(settings, Potential(potential, communicator_));
    arrange();
}

void Propagation::set_barostat(const BarostatSettings &settings) {
    TORCH_CHECK_VALUE(guard_, "a propagator knows no energy, and a barostat goes by the guard's; give a guard");
    check_barostat(true, thermostat_.active());
    barostat_.emplace(settings);
}

void Propagation::stay_on_device(SystemEvaluation &network, const Particles &particles) {
    on_device_ = &network;
    device_.emplace(particles, network.model().device());
    arrange();
}

// A guard compares what lies between the half-steps, which then stand outside the captured step.
void Propagation::arrange() {
    if (!on_device_)
        return;
    SystemEvaluation::Around around;
    if (thermostat_.active() && !guard_) {
        around.before = [this](const equistride::State &state) { return device_->half_step(state, 0); };
        around.after = [this](const equistride::State &state) { return device_->half_step(state, 1); };
    }
    on_device_->set_around(std::move(around));
}

State Propagation::stride(const State &before, const Particles &particles) {
    const Outputs outputs = network_.compute({before.positions, before.velocities, particles.cell, particles.labels});
    const auto here = before.positions.options();
    at::Tensor velocities = outputs.velocities.to(here);
    if (on_device_)
        velocities = velocities.clone(); // the next step overwrites its outputs
    const State after = {before.positions + outputs.displacements.to(here), velocities};
    if (!on_device_)
        network_.check();
    else if (guard_) // which must know now
        on_device_->finish();
    return after;
}

void Propagation::half_step(State &state, const Particles &particles, std::size_t which) {
    if (!on_device_)
        thermostat_.apply(state, particles, 0.5 * stride_fs(), draws_, communicator_);
    else if (thermostat_.active() && guard_)
        state.velocities = device_->half_step(state, which);
}

void Propagation::step(State &state, Particles &particles, std::int64_t number) {
    if (!on_device_) // there the step itself says what is wrong
        together(communicator_, [&] {
            Frame frame;
            frame.positions = state.positions;
            frame.labels = particles.labels;
            check_positions(frame);
            check_finite(state.velocities, frame, "the velocity", "set the velocities anew");
        });
    const State before = state;
    const Memory known = memory();
    try {
        move(state, particles, number);
    } catch (...) { // with another noise, a run that goes on would not be the unbroken one
        state = before;
        recall(known);
        throw;
    }
}

void Propagation::move(State &state, Particles &particles, std::int64_t number) {
    if (on_device_ && thermostat_.active())
        device_->prepare(thermostat_, 0.5 * stride_fs(), draws_);
    half_step(state, particles, 0);
    const auto network = [&] { return stride(state, particles); };
    state =
        guard_ ? guard_->stride(network, state, particles, {number, stride_fs(), !thermostat_.active()}) : network();
    half_step(state, particles, 1);
    if (barostat_ && barostat_->due(number) &&
        barostat_->move(state, particles, thermostat_.temperature, guard_->potential(), draws_))
        guard_->reset();
}

void Propagation::recall(const Memory &memory) {
    draws_ = memory.draws;
    if (memory.guard)
        guard_.emplace(*memory.guard);
    if (memory.barostat)
        barostat_.emplace(*memory.barostat);
}

std::string Propagation::state() const {
    Checkpoint checkpoint;
    checkpoint.set("random", draws_.seed);
    checkpoint.set("random.draws", draws_.number);
    checkpoint.set("stride", stride_fs());
    if (guard_)
        guard_->save(checkpoint);
    if (barostat_)
        barostat_->save(checkpoint);
    return checkpoint.text();
}

void Propagation::set_state(const std::string &state) {
    const Checkpoint checkpoint(state);
    const auto fits = [&](const char *what, bool here, const char *name) {
        TORCH_CHECK_VALUE(here == checkpoint.has(name), "the checkpoint does not fit this run: one of them has a ",
                          what, ", and the other has none; set the run up as it was");
        return here;
    };
    const bool guarded = fits("guard", guard_.has_value(), "guard.strides");
    const bool strained = fits("barostat", barostat_.has_value(), "barostat.moves");
    if (checkpoint.has("stride"))
        set_stride(checkpoint.number("stride"));
    if (strained)
        barostat_->load(checkpoint);
    if (guarded)
        guard_->load(checkpoint);
    draws_.seed = checkpoint.word("random");
    draws_.number = checkpoint.word("random.draws");
}

} // namespace equistride
