#include "propagation/guard.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <array>
#include <bit>
#include <chrono>
#include <cmath>

namespace equistride {
namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

} // namespace

void GuardSettings::check() const {
    TORCH_CHECK_VALUE(mode == "correct" || mode == "reject" || mode == "midpoint",
                      "the mode of a guard is not known; expected correct, reject or midpoint; found '", mode, "'");
    TORCH_CHECK_VALUE(every >= 1, "a guard checks every so many strides; expected 1 or more; found ", every);
    TORCH_CHECK_VALUE(bound >= 0, "the bound of a guard makes no sense; expected an energy, 0 or more; found ", bound);
    TORCH_CHECK_VALUE(std::isfinite(substep) && substep > 0,
                      "the substep of a guard makes no sense; expected more than 0 fs; found ", substep);
}

Guard::Guard(GuardSettings settings, Potential potential, at::Tensor masses, double stride)
    : settings_(std::move(settings)), potential_(std::move(potential)), masses_(std::move(masses)), stride_(stride) {
    settings_.check();
}

double Guard::energy(const State &state, const at::Tensor &cell) {
    return potential_.evaluate(state.positions, cell, false).energy + kinetic_energy(state.velocities, masses_);
}

State Guard::mechanics(const State &before, const at::Tensor &cell) {
    const auto steps = static_cast<std::int64_t>(std::ceil(stride_ / settings_.substep - 1e-9));
    return velocity_verlet(potential_, before, masses_, cell, stride_, std::max<std::int64_t>(steps, 1));
}

// Scale the internal velocities so that the total energy is `energy`; false where that would take a factor beyond 2.
bool Guard::scale(State &state, const at::Tensor &cell, bool conserves_angular_momentum, double energy) {
    const RigidMotion rigid(state.positions, masses_, conserves_angular_momentum);
    const at::Tensor whole = rigid.part(state.velocities), internal = state.velocities - whole;
    const double kinetic = kinetic_energy(internal, masses_);
    const double square = 1.0 + (energy - this->energy(state, cell)) / kinetic;
    if (!(square >= 0.25 && square <= 4.0))
        return false;
    state.velocities = whole + std::sqrt(square) * internal;
    return true;
}

void Guard::mend(State &after, const State &before, const at::Tensor &cell, bool conserves_angular_momentum,
                 double energy) {
    bool done = false;
    if (settings_.mode == "correct")
        done = scale(after, cell, conserves_angular_momentum, energy);
    else if (settings_.mode == "midpoint")
        done = implicit_midpoint(potential_, before, after, masses_, cell, stride_);
    (done ? counts_.corrected : counts_.rejected)++;
    if (!done)
        after = mechanics(before, cell);
}

void Guard::look(State &after, const State &before, const at::Tensor &cell, bool conserves_angular_momentum,
                 bool conserves, bool trusted) {
    const bool whole_run = settings_.rescale && conserves, bounded = std::isfinite(settings_.bound);
    double old = std::nan("");
    if (bounded || !whole_run || !start_)
        old = (static_ ? *static_ : potential_.evaluate(before.positions, cell, false).energy) +
              kinetic_energy(before.velocities, masses_);
    if (whole_run && !start_)
        start_ = old;
    const double wanted = whole_run ? *start_ : old;
    if (trusted && std::isfinite(old)) {
        const double change = (energy(after, cell) - old) / static_cast<double>(masses_.size(0));
        counts_.compared++;
        counts_.sum += change;
        counts_.squares += change * change;
        counts_.largest = std::max(counts_.largest, std::abs(change));
        if (!(std::abs(change) <= settings_.bound)) {
            counts_.violations++;
            mend(after, before, cell, conserves_angular_momentum, wanted);
        }
    }
    if (settings_.rescale && !scale(after, cell, conserves_angular_momentum, wanted)) {
        counts_.rejected++;
        after = mechanics(before, cell);
        TORCH_CHECK_VALUE(scale(after, cell, conserves_angular_momentum, wanted), "the total energy is ",
                          1000.0 * std::abs(energy(after, cell) - wanted) / static_cast<double>(masses_.size(0)),
                          " meV/atom away from that of the start, more than scaling the velocities can mend; let the "
                          "guard look more often (every), or use a better propagator");
    }
}

State Guard::stride(const std::function<State()> &network, const State &before, const at::Tensor &cell,
                    std::int64_t number, bool conserves_angular_momentum, bool conserves) {
    const double begin = seconds();
    counts_.strides++;
    const std::int64_t evaluations = potential_.evaluations();
    State after;
    bool trusted = true;
    try {
        after = network();
    } catch (const c10::ValueError &) {
        trusted = false;
    }
    const double middle = seconds();
    if (!trusted) { // atoms too fast, or too near: the potential says whether that can be
        counts_.refused++;
        after = mechanics(before, cell);
    }
    if (number % settings_.every == 0 || (settings_.rescale && conserves && !start_)) {
        counts_.checks++;
        look(after, before, cell, conserves_angular_momentum, conserves, trusted);
    }
    // Kept, and not looked up by positions: an engine's units round these, and a run that is resumed must not differ.
    static_.reset();
    if (settings_.every == 1)
        static_ = potential_.evaluate(after.positions, cell, false).energy;
    counts_.evaluations += static_cast<double>(potential_.evaluations() - evaluations);
    counts_.network_seconds += middle - begin;
    counts_.guard_seconds += seconds() - middle;
    return after;
}

std::vector<std::int64_t> Guard::state() const {
    const auto words = std::bit_cast<Words>(counts_);
    std::vector<std::int64_t> state(words.begin(), words.end());
    for (const std::optional<double> &energy : {start_, static_})
        state.push_back(std::bit_cast<std::int64_t>(energy.value_or(std::nan(""))));
    return state;
}

void Guard::set_state(const std::vector<std::int64_t> &state) {
    Words words{};
    TORCH_CHECK_VALUE(state.size() == words.size() + 2, "the checkpoint's guard is of another version of equistride");
    std::copy_n(state.begin(), words.size(), words.begin());
    counts_ = std::bit_cast<Counts>(words);
    const auto energy = [&](std::size_t k) {
        const auto value = std::bit_cast<double>(state[words.size() + k]);
        return std::isnan(value) ? std::nullopt : std::optional(value);
    };
    start_ = energy(0);
    static_ = energy(1);
}

std::map<std::string, double> Guard::statistics() const {
    const Counts &c = counts_;
    const double n = std::max(c.compared, 1.0);
    return {{"strides", c.strides},
            {"checks", c.checks},
            {"violations", c.violations},
            {"corrected", c.corrected},
            {"rejected", c.rejected},
            {"refused", c.refused},
            {"evaluations", c.evaluations},
            {"mean_change", c.sum / n},
            {"rms_change", std::sqrt(c.squares / n)},
            {"largest_change", c.largest},
            {"guard_seconds", c.guard_seconds},
            {"network_seconds", c.network_seconds}};
}

} // namespace equistride
