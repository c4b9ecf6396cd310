#include "propagation/guard.h"

#include "propagation/clock.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>

namespace equistride {

void GuardSettings::check() const {
    TORCH_CHECK_VALUE(mode == "correct" || mode == "reject" || mode == "midpoint",
                      "the mode of a guard is not known; expected correct, reject or midpoint; found '", mode, "'");
    TORCH_CHECK_VALUE(every >= 1, "a guard checks every so many strides; expected 1 or more; found ", every);
    TORCH_CHECK_VALUE(bound >= 0, "the bound of a guard makes no sense; expected an energy, 0 or more; found ", bound);
    TORCH_CHECK_VALUE(std::isfinite(substep) && substep > 0,
                      "the substep of a guard makes no sense; expected more than 0 fs; found ", substep);
}

const std::map<std::string, double Guard::Counts::*> Guard::FIELDS = {{"strides", &Counts::strides},
                                                                      {"checks", &Counts::checks},
                                                                      {"violations", &Counts::violations},
                                                                      {"corrected", &Counts::corrected},
                                                                      {"rejected", &Counts::rejected},
                                                                      {"refused", &Counts::refused},
                                                                      {"evaluations", &Counts::evaluations},
                                                                      {"sum", &Counts::sum},
                                                                      {"squares", &Counts::squares},
                                                                      {"largest", &Counts::largest},
                                                                      {"compared", &Counts::compared},
                                                                      {"guard_seconds", &Counts::guard_seconds},
                                                                      {"network_seconds", &Counts::network_seconds}};

Guard::Guard(GuardSettings settings, Potential potential)
    : settings_(std::move(settings)), potential_(std::move(potential)) {
    settings_.check();
}

double Guard::energy(const State &state, const Particles &particles) {
    return potential_.evaluate(state.positions, particles, false).energy +
           kinetic_energy(state.velocities, particles.masses, potential_.communicator());
}

State Guard::mechanics(const State &before, const Particles &particles) {
    const auto steps = static_cast<std::int64_t>(std::ceil(stride_fs_ / settings_.substep - 1e-9));
    return velocity_verlet(potential_, before, particles, stride_fs_, std::max<std::int64_t>(steps, 1));
}

// Scale the internal velocities so that the total energy is `energy`; false where that would take a factor beyond 2.
bool Guard::scale(State &state, const Particles &particles, double energy) {
    return heat(state, particles, energy - this->energy(state, particles));
}

// Scale them so that their kinetic energy is `energy` more.
bool Guard::heat(State &state, const Particles &particles, double energy) {
    const Communicator &communicator = potential_.communicator();
    const RigidMotion rigid(state.positions, particles.masses, particles.conserves_angular_momentum, communicator);
    const at::Tensor whole = rigid.part(state.velocities), internal = state.velocities - whole;
    const double kinetic = kinetic_energy(internal, particles.masses, communicator);
    const double square = 1.0 + energy / kinetic;
    if (!(square >= 0.25 && square <= 4.0))
        return false;
    state.velocities = whole + std::sqrt(square) * internal;
    return true;
}

void Guard::repair(State &after, const State &before, const Particles &particles, double energy) {
    bool done = false;
    if (settings_.mode == "correct")
        done = scale(after, particles, energy);
    else if (settings_.mode == "midpoint")
        done = implicit_midpoint(potential_, before, after, particles, stride_fs_);
    (done ? counts_.corrected : counts_.rejected)++;
    if (!done)
        after = mechanics(before, particles);
}

void Guard::check(State &after, const State &before, const Particles &particles, const StrideFacts &facts) {
    const bool whole_run = settings_.rescale && facts.conserves_energy, bounded = std::isfinite(settings_.bound);
    double old = std::nan("");
    if (bounded || !whole_run || !start_)
        old = (static_ ? *static_ : potential_.evaluate(before.positions, particles, false).energy) +
              kinetic_energy(before.velocities, particles.masses, potential_.communicator());
    if (whole_run && !start_)
        start_ = old;
    const double wanted = whole_run ? *start_ : old;
    bool learns = whole_run && facts.by_network;
    const double excess = learns ? energy(after, particles) - wanted : 0;
    const auto atoms = static_cast<double>(particles.count);
    if (facts.by_network && std::isfinite(old)) {
        const double change = (energy(after, particles) - facts.given - old) / atoms;
        counts_.compared++;
        counts_.sum += change;
        counts_.squares += change * change;
        counts_.largest = std::max(counts_.largest, std::abs(change));
        if (!(std::abs(change) <= settings_.bound)) {
            counts_.violations++;
            learns = false;
            repair(after, before, particles, wanted);
        }
    }
    if (settings_.rescale && !scale(after, particles, wanted)) {
        counts_.rejected++;
        learns = false;
        after = mechanics(before, particles);
        TORCH_CHECK_VALUE(scale(after, particles, wanted), "the total energy is ",
                          1000.0 * std::abs(energy(after, particles) - wanted) / atoms,
                          " meV/atom away from that of the start, more than scaling the velocities can make up for; "
                          "let the guard look more often (every), or use a better propagator");
    }
    if (learns)
        learn(excess, kinetic_energy(after.velocities, particles.masses, potential_.communicator()));
}

// What the next strides are given, from the energy that those since the last check left too much.
void Guard::learn(double excess, double kinetic) {
    constexpr double SHARE = 0.5;             // of what is new: a check sees one phase of the vibrations
    constexpr double NEW = 0.01, WHOLE = 0.1; // of the kinetic energy at most: one odd stride says little
    const auto within = [kinetic](double value, double share) {
        return std::clamp(value, -share * kinetic, share * kinetic);
    };
    trend_ = within(trend_ - within(SHARE * excess / static_cast<double>(settings_.every), NEW), WHOLE);
}

State Guard::stride(const std::function<State()> &network, const State &before, const Particles &particles,
                    StrideFacts facts) {
    const double begin = seconds();
    counts_.strides++;
    if (stride_fs_ != 0 && stride_fs_ != facts.stride_fs) // one of another length loses or gains another energy
        trend_ = 0;
    stride_fs_ = facts.stride_fs;
    const std::int64_t evaluations = potential_.evaluations();
    State after;
    try {
        after = network();
    } catch (const c10::ValueError &) {
        facts.by_network = false;
    }
    const double middle = seconds();
    if (facts.by_network && settings_.rescale && facts.conserves_energy && trend_ != 0 &&
        heat(after, particles, trend_))
        facts.given = trend_;
    if (!facts.by_network) { // atoms too fast, or too near: the potential says whether that can be
        counts_.refused++;
        after = mechanics(before, particles);
    }
    if (facts.number % settings_.every == 0 || (settings_.rescale && facts.conserves_energy && !start_)) {
        counts_.checks++;
        check(after, before, particles, facts);
    }
    // Kept, and not looked up by positions: an engine's units round these, and a run that is resumed must not differ.
    static_.reset();
    if (settings_.every == 1)
        static_ = potential_.evaluate(after.positions, particles, false).energy;
    counts_.evaluations += static_cast<double>(potential_.evaluations() - evaluations);
    counts_.network_seconds += middle - begin;
    counts_.guard_seconds += seconds() - middle;
    return after;
}

void Guard::save(Checkpoint &checkpoint) const {
    for (const auto &[name, field] : FIELDS)
        checkpoint.set("guard." + name, counts_.*field);
    checkpoint.set("guard.start", start_.value_or(std::nan("")));
    checkpoint.set("guard.trend", trend_);
    checkpoint.set("guard.stride", stride_fs_);
    checkpoint.set("guard.static", static_.value_or(std::nan("")));
}

void Guard::load(const Checkpoint &checkpoint) {
    for (const auto &[name, field] : FIELDS)
        counts_.*field = checkpoint.number("guard." + name);
    const auto energy = [&](const char *name) {
        const double value = checkpoint.number(name);
        return std::isnan(value) ? std::nullopt : std::optional(value);
    };
    trend_ = checkpoint.has("guard.trend") ? checkpoint.number("guard.trend") : 0;
    stride_fs_ = checkpoint.has("guard.stride") ? checkpoint.number("guard.stride") : 0;
    start_ = energy("guard.start");
    static_ = energy("guard.static");
}

std::map<std::string, double> Guard::statistics() const {
    std::map<std::string, double> found;
    for (const auto &[name, field] : FIELDS)
        found[name] = counts_.*field;
    for (const char *sum : {"sum", "squares", "largest", "compared"})
        found.erase(sum);
    const double n = std::max(counts_.compared, 1.0);
    found["mean_change"] = counts_.sum / n;
    found["rms_change"] = std::sqrt(counts_.squares / n);
    found["largest_change"] = counts_.largest;
    return found;
}

} // namespace equistride
