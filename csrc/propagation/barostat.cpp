#include "propagation/barostat.h"

#include "equistride/units.h"
#include "propagation/clock.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <sstream>

namespace equistride {

void BarostatSettings::check() const {
    TORCH_CHECK_VALUE(std::isfinite(pressure), "the pressure of a barostat makes no sense; expected bar; found ",
                      pressure);
    TORCH_CHECK_VALUE(every >= 1, "a barostat moves the box every so many strides; expected 1 or more; found ", every);
    TORCH_CHECK_VALUE(axes == "xyz" || axes == "xy,z" || axes == "x,y,z",
                      "the axes of a barostat are not known; expected xyz, 'xy,z' or 'x,y,z'; found '", axes, "'");
}

Barostat::Barostat(BarostatSettings settings) : settings_(std::move(settings)) {
    settings_.check();
    std::istringstream text(settings_.axes);
    for (std::string group; std::getline(text, group, ',');) {
        groups_.emplace_back();
        for (const char axis : group)
            groups_.back().axes.push_back(axis - 'x');
    }
}

void Barostat::Group::count(bool was_taken) {
    constexpr double ENOUGH = 10;
    tried++;
    taken += was_taken;
    if (tried < ENOUGH || (taken >= 0.25 * tried && taken <= 0.75 * tried))
        return;
    largest = taken < 0.25 * tried ? largest / 1.1 : std::min(largest * 1.1, MOST);
    tried = taken = 0;
}

bool Barostat::move(State &state, Particles &particles, double temperature, Potential &potential, Draws &draws) {
    const double begin = seconds(), volume = std::abs(at::linalg_det(particles.cell).item<double>());
    TORCH_CHECK_VALUE(volume > 0, "a barostat needs a box along all three axes; leave it out, or give the system one");
    Noise noise = draws.next().of(0);
    const auto which = static_cast<std::size_t>(noise.uniform() * static_cast<double>(groups_.size()));
    Group &group = groups_[which];
    // even in the logarithm: the largest move then knows nothing of the present volume, to which it is adapted
    const double stretch = group.largest * (2 * noise.uniform() - 1), chance = noise.uniform();
    const double growth = stretch * static_cast<double>(group.axes.size()); // of the volume
    at::Tensor factors = at::ones({3}, at::kDouble);
    for (const int axis : group.axes)
        factors[axis] = std::exp(stretch);

    const double thermal = units::BOLTZMANN * temperature;
    const double before = potential.evaluate(state.positions, particles, false).energy;
    const at::Tensor positions = state.positions * factors.to(state.positions.device());
    Particles moved = particles;
    moved.cell = particles.cell * factors;
    bool accepted = false;
    try {
        const double work = potential.evaluate(positions, moved, false).energy - before +
                            settings_.pressure / units::EV_PER_ANGSTROM3_IN_BAR * volume * std::expm1(growth);
        accepted = std::log(chance) <= static_cast<double>(particles.count + 1) * growth - work / thermal;
    } catch (const c10::ValueError &) { // atoms too near, a box too small: of no weight
    }
    if (accepted) {
        state.positions = positions;
        particles.cell = moved.cell;
    }
    group.count(accepted);
    moves_++;
    taken_ += accepted;
    seconds_ += seconds() - begin;
    return accepted;
}

std::map<std::string, double> Barostat::statistics() const {
    return {{"moves", moves_}, {"taken", taken_}, {"seconds", seconds_}};
}

void Barostat::save(Checkpoint &checkpoint) const {
    checkpoint.set("barostat.groups", static_cast<double>(groups_.size()));
    checkpoint.set("barostat.moves", moves_);
    checkpoint.set("barostat.taken", taken_);
    checkpoint.set("barostat.seconds", seconds_);
    for (std::size_t k = 0; k < groups_.size(); k++) {
        const std::string name = "barostat." + std::to_string(k);
        checkpoint.set(name + ".largest", groups_[k].largest);
        checkpoint.set(name + ".tried", groups_[k].tried);
        checkpoint.set(name + ".taken", groups_[k].taken);
    }
}

void Barostat::load(const Checkpoint &checkpoint) {
    TORCH_CHECK_VALUE(checkpoint.number("barostat.groups") == static_cast<double>(groups_.size()),
                      "the checkpoint does not fit this run: its barostat moves other axes; set the run up as it was");
    moves_ = checkpoint.number("barostat.moves");
    taken_ = checkpoint.number("barostat.taken");
    seconds_ = checkpoint.number("barostat.seconds");
    for (std::size_t k = 0; k < groups_.size(); k++) {
        const std::string name = "barostat." + std::to_string(k);
        groups_[k].largest = checkpoint.number(name + ".largest");
        groups_[k].tried = checkpoint.number(name + ".tried");
        groups_[k].taken = checkpoint.number(name + ".taken");
    }
}

} // namespace equistride
