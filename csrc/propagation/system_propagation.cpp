#include "propagation/system_propagation.h"

#include <ATen/ATen.h>

#include <cmath>
#include <numeric>

namespace equistride {
namespace {

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

// [N, 1] amu
at::Tensor trained_masses(const Metadata &metadata, const Atoms &atoms) {
    const at::Tensor masses = atoms.masses.contiguous();
    const double *mass = masses.const_data_ptr<double>();
    at::Tensor used = at::empty_like(masses);
    double *use = used.mutable_data_ptr<double>();
    for (std::int64_t i = 0; i < masses.size(0); i++) {
        const std::string &element = atoms.elements[static_cast<std::size_t>(i)];
        const double trained = metadata.masses[static_cast<std::size_t>(metadata.species_index(element))];
        TORCH_CHECK_VALUE(same_mass(mass[i], trained), "the mass of atom ", i, " (", element,
                          ") is not the one that the model was trained with; expected ", trained, " amu; found ",
                          mass[i], " amu; a stride holds for its masses alone, so set them back");
        use[i] = trained;
    }
    return used;
}

} // namespace

SystemPropagation::SystemPropagation(std::unique_ptr<Model> propagator, Atoms atoms, const Thermostat &thermostat,
                                     std::uint64_t seed, at::Device device)
    : atoms_(std::move(atoms)), device_(device) {
    const Metadata metadata = propagator->metadata();
    TORCH_CHECK_VALUE(metadata.kind == "propagator",
                      "this model does not move atoms by itself; expected a propagator; found a ", metadata.kind,
                      "; use it as a force");
    const std::int64_t count = atoms_.masses.size(0);
    if (atoms_.elements.empty())
        for (std::int64_t i = 0; i < count; i++)
            atoms_.elements.push_back(element_of_mass(metadata, atoms_.masses[i].item<double>(), i));
    TORCH_CHECK_VALUE(static_cast<std::int64_t>(atoms_.elements.size()) == count,
                      "the number of elements is wrong; expected ", count, ", one an atom; found ",
                      atoms_.elements.size());
    network_ = serve(std::move(propagator), "the model");
    run_.emplace(*network_.evaluation, thermostat, seed);
    particles_.masses = trained_masses(metadata, atoms_);
    particles_.ids.resize(static_cast<std::size_t>(count));
    std::iota(particles_.ids.begin(), particles_.ids.end(), 1);
    particles_.count = count;
    particles_.conserves_angular_momentum = !atoms_.pbc.any().item<bool>();
}

SystemPropagation::Served SystemPropagation::serve(std::unique_ptr<Model> model, const std::string &what) const {
    const Metadata &metadata = model->metadata();
    TORCH_CHECK_VALUE(!metadata.requires_box || atoms_.pbc.all().item<bool>(), what,
                      " was trained on periodic systems alone, and this one has no box; give the system its box");
    std::vector<std::int64_t> species;
    for (const std::string &element : atoms_.elements)
        species.push_back(metadata.species_index(element));
    model->to(device_, model->dtype());
    auto evaluation = std::make_unique<SystemEvaluation>(*model, at::tensor(species, at::kLong), atoms_.pbc);
    return {std::move(model), std::move(evaluation)};
}

void SystemPropagation::set_guard(const GuardSettings &settings, std::unique_ptr<Model> potential) {
    potential_ = serve(std::move(potential), "the guard's potential");
    run_->set_guard(settings, *potential_.evaluation);
}

void SystemPropagation::set_barostat(const BarostatSettings &settings) {
    TORCH_CHECK_VALUE(atoms_.pbc.all().item<bool>(), "a barostat needs a box along all three axes; leave it out");
    run_->set_barostat(settings);
}

void SystemPropagation::stay_on_device() {
    on_device_ = true;
    network_.evaluation->pad();
    device_masses_ = particles_.masses.to(device_);
    run_->stay_on_device(*network_.evaluation, particles_);
}

void SystemPropagation::step(State &state, at::Tensor &cell, std::int64_t number) {
    Particles particles = particles_;
    particles.cell = cell;
    if (on_device_) {
        particles.masses = device_masses_;
        state = {state.positions.to(device_), state.velocities.to(device_)};
        Propagation::Memory began = run_->memory();
        or_recall([&] { run_->step(state, particles, number); });
        last_.reset();
        last_.emplace(std::move(began));
    } else {
        run_->step(state, particles, number);
    }
    cell = particles.cell;
}

void SystemPropagation::finish() {
    or_recall([&] { network_.evaluation->finish(); });
}

template <class Body> void SystemPropagation::or_recall(Body body) {
    try {
        body();
    } catch (...) {
        if (failed() && last_)
            run_->recall(*last_);
        last_.reset();
        throw;
    }
}

at::Tensor SystemPropagation::thermal_velocities(const at::Tensor &positions, double temperature,
                                                 std::uint64_t seed) const {
    return equistride::thermal_velocities(positions, particles_, temperature, {seed, 0});
}

} // namespace equistride
