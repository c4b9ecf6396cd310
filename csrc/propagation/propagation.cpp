#include "propagation/propagation.h"

#include "model/checks.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <bit>
#include <cmath>

namespace equistride {
namespace {

// Tables of atomic masses differ in the fifth digit, isotopes by a per cent or more.
constexpr double SAME_MASS = 1e-3;

bool same_mass(double found, double trained) { return std::abs(found - trained) <= SAME_MASS * trained; }

std::string element_of_mass(const Metadata &metadata, double mass, std::int64_t atom) {
    std::string found;
    for (std::size_t k = 0; k < metadata.species.size(); k++)
        if (same_mass(mass, metadata.masses[k])) {
            TORCH_CHECK_VALUE(found.empty(), "the mass of atom ", atom, ", ", mass, " amu, is that of ", found,
                              " and of ", metadata.species[k], "; give the topology, which knows the elements");
            found = metadata.species[k];
        }
    TORCH_CHECK_VALUE(!found.empty(), "the mass of atom ", atom,
                      " is that of no element of the model; expected one of ", c10::Join(", ", metadata.masses),
                      " amu (", c10::Join(", ", metadata.species), "); found ", mass,
                      " amu; use the masses that the model was trained with");
    return found;
}

} // namespace

Propagation::Propagation(std::unique_ptr<Model> propagator, Atoms atoms, Thermostat thermostat, std::uint64_t seed,
                         at::Device device)
    : model_(std::move(propagator)), atoms_(std::move(atoms)), random_(seed), device_(device) {
    const Metadata &metadata = model_->metadata();
    TORCH_CHECK_VALUE(metadata.kind == "propagator",
                      "this model does not move atoms by itself; expected a propagator; "
                      "found a ",
                      metadata.kind, "; use it as a force");
    conserves_angular_momentum_ = atoms_.open();
    TORCH_CHECK_VALUE(
        !metadata.requires_box || atoms_.periodic(),
        "the model was trained on periodic systems alone, and this one has no box; give the system its box");
    const at::Tensor masses = atoms_.masses.contiguous();
    const double *mass = masses.const_data_ptr<double>();
    const std::int64_t count = masses.size(0);
    if (atoms_.elements.empty())
        for (std::int64_t i = 0; i < count; i++)
            atoms_.elements.push_back(element_of_mass(metadata, mass[i], i));
    TORCH_CHECK_VALUE(static_cast<std::int64_t>(atoms_.elements.size()) == count,
                      "the number of elements is wrong; expected ", count, ", one an atom; found ",
                      atoms_.elements.size());
    std::vector<std::int64_t> species;
    at::Tensor used = at::empty_like(masses);
    double *use = used.mutable_data_ptr<double>();
    for (std::int64_t i = 0; i < count; i++) {
        const std::string &element = atoms_.elements[static_cast<std::size_t>(i)];
        const int index = metadata.species_index(element);
        const double trained = metadata.masses[static_cast<std::size_t>(index)];
        TORCH_CHECK_VALUE(same_mass(mass[i], trained), "the mass of atom ", i, " (", element,
                          ") is not the one that the model was trained with; expected ", trained, " amu; found ",
                          mass[i], " amu; a stride holds for its masses alone, so set them back");
        species.push_back(index);
        use[i] = trained;
    }
    atoms_.masses = used;
    model_->to(device_, model_->dtype());
    evaluation_ = std::make_unique<SystemEvaluation>(*model_, at::tensor(species, at::kLong), atoms_.pbc);
    set_thermostat(thermostat);
}

void Propagation::set_thermostat(const Thermostat &thermostat) {
    thermostat.check();
    thermostat_ = thermostat;
}

void Propagation::set_guard(const GuardSettings &settings, std::unique_ptr<Model> potential) {
    guard_.emplace(settings, Potential(std::move(potential), atoms_, device_), atoms_.masses, stride_fs());
}

State Propagation::network(const State &before, const at::Tensor &cell) {
    Coordinates now;
    now.positions = before.positions;
    now.velocities = before.velocities;
    now.cell = cell;
    const Outputs outputs = evaluation_->compute(now);
    const at::Tensor moved = outputs.displacements.to(at::kCPU, at::kDouble);
    const State after = {before.positions + moved, outputs.velocities.to(at::kCPU, at::kDouble)};
    evaluation_->check();
    return after;
}

void Propagation::step(State &state, const at::Tensor &cell, std::int64_t number) {
    Frame frame;
    frame.positions = state.positions;
    check_positions(frame);
    check_finite(state.velocities, frame, "the velocity", "set the velocities anew");
    const double half = 0.5 * stride_fs();
    thermostat_.apply(state, atoms_.masses, conserves_angular_momentum_, half, random_);
    const auto stride = [&] { return network(state, cell); };
    state = guard_ ? guard_->stride(stride, state, cell, number, conserves_angular_momentum_, !thermostat_.active())
                   : stride();
    thermostat_.apply(state, atoms_.masses, conserves_angular_momentum_, half, random_);
}

std::vector<std::int64_t> Propagation::state() const {
    std::vector<std::int64_t> state = {std::bit_cast<std::int64_t>(random_.state())};
    if (guard_) {
        const std::vector<std::int64_t> more = guard_->state();
        state.insert(state.end(), more.begin(), more.end());
    }
    return state;
}

void Propagation::set_state(const std::vector<std::int64_t> &state) {
    TORCH_CHECK_VALUE(state.size() == this->state().size(),
                      "the checkpoint does not fit this run: one of them has a guard, "
                      "and the other has none; set the run up as it was");
    random_ = SplitMix64::from_state(std::bit_cast<std::uint64_t>(state[0]));
    if (guard_)
        guard_->set_state({state.begin() + 1, state.end()});
}

} // namespace equistride
