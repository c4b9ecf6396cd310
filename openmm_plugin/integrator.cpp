#include "integrator.h"

#include "artifact/archive.h"
#include "equistride/units.h"
#include "errors.h"
#include "evaluator.h"
#include "gil.h"
#include "system_checks.h"

#include <ATen/ATen.h>
#include <openmm/System.h>
#include <openmm/internal/ContextImpl.h>
#include <openmm/serialization/SerializationNode.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <sstream>

using OpenMM::OpenMMException;
using OpenMM::Vec3;

namespace equistride {
namespace {

constexpr double FS_NM_PER_PS_ANGSTROM = units::ANGSTROM_PER_NM / units::FS_PER_PS;

at::Tensor tensor_of(const std::vector<Vec3> &vectors, double factor) {
    at::Tensor made = at::empty({static_cast<std::int64_t>(vectors.size()), 3}, at::kDouble);
    auto *x = made.mutable_data_ptr<double>();
    for (const Vec3 &vector : vectors)
        for (int k = 0; k < 3; k++)
            *x++ = vector[k] * factor;
    return made;
}

std::vector<Vec3> vectors_of(const at::Tensor &tensor, double divisor) {
    const at::Tensor values = tensor.contiguous();
    const auto *x = values.const_data_ptr<double>();
    std::vector<Vec3> made(static_cast<std::size_t>(values.size(0)));
    for (Vec3 &vector : made)
        for (int k = 0; k < 3; k++)
            vector[k] = *x++ / divisor;
    return made;
}

std::string name_of(const std::string &file) { return file.empty() ? "the model" : file; }

} // namespace

TrajCastIntegrator::TrajCastIntegrator(Bytes model, const std::string &file) : model_(std::move(model)), file_(file) {
    rethrow_as_openmm([&] {
        const GilRelease released;
        metadata_ = Model::from_bytes(model_, name_of(file_))->metadata();
    });
    if (metadata_.kind != "propagator")
        throw OpenMMException(name_of(file_) + " is a " + metadata_.kind +
                              ", which has forces and moves no atoms; expected a propagator; use create_force and an "
                              "integrator of OpenMM for it");
    setConstraintTolerance(1e-5);
}

TrajCastIntegrator::~TrajCastIntegrator() = default;

void TrajCastIntegrator::setElements(const std::vector<std::string> &elements) {
    rethrow_as_openmm([&] {
        for (const std::string &element : elements)
            metadata_.species_index(element);
    });
    elements_ = elements;
}

void TrajCastIntegrator::setThermostat(const Thermostat &thermostat) {
    rethrow_as_openmm([&] {
        thermostat.check();
        if (run_)
            run_->set_thermostat(thermostat);
    });
    thermostat_ = thermostat;
}

void TrajCastIntegrator::setGuard(const Watch &watch) {
    if (run_)
        throw OpenMMException("a guard is set before the Context is made");
    rethrow_as_openmm([&] {
        const GilRelease released;
        watch.settings.check();
        const auto model = Model::from_bytes(watch.model, name_of(watch.file));
        TORCH_CHECK_VALUE(model->metadata().kind == "potential", "a guard needs the energy of a potential; found a ",
                          model->metadata().kind, "; give it a potential of the same system");
    });
    watch_ = watch;
}

std::map<std::string, double> TrajCastIntegrator::getGuardStatistics() const {
    Guard *guard = run_ ? run_->guard() : nullptr;
    return guard ? guard->statistics() : std::map<std::string, double>{};
}

double TrajCastIntegrator::getStepSize() const { return metadata_.stride_fs / units::FS_PER_PS; }

void TrajCastIntegrator::setStepSize(double size) {
    if (std::abs(size - getStepSize()) > 1e-9 * getStepSize()) {
        std::ostringstream text;
        text << "the step of a propagator is the stride that it was trained for; expected " << getStepSize()
             << " ps; found " << size << " ps; train a model for another stride";
        throw OpenMMException(text.str());
    }
}

void TrajCastIntegrator::initialize(OpenMM::ContextImpl &made) {
    if (owner && &made.getOwner() != owner)
        throw OpenMMException("this integrator is already bound to a Context; make another one (copy.deepcopy)");
    const OpenMM::System &system = made.getSystem();
    check_propagated_system(system, thermostat_.active(), getIntegrationForceGroups());
    if (periodic_ && !topology_box_.empty())
        check_box_was_set(system, topology_box_);
    const int count = system.getNumParticles();
    std::vector<double> masses;
    for (int i = 0; i < count; i++)
        masses.push_back(system.getParticleMass(i));
    rethrow_as_openmm([&] {
        const GilRelease released;
        const at::Device automatic = at::hasCUDA() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
        const Atoms atoms{elements_, at::tensor(masses, at::kDouble).unsqueeze(1), at::full({3}, periodic_, at::kBool)};
        const auto seed = seed_ == 0 ? std::random_device()() : static_cast<std::uint64_t>(seed_);
        run_ = std::make_unique<Propagation>(Model::from_bytes(model_, name_of(file_), /*verify=*/false), atoms,
                                             thermostat_, seed, choose_device(device_, automatic));
        if (watch_)
            run_->set_guard(watch_->settings, Model::from_bytes(watch_->model, name_of(watch_->file), false));
    });
    context = &made;
    owner = &made.getOwner();
    next_step_ = -1;
    box_.clear();
}

void TrajCastIntegrator::cleanup() { run_.reset(); }

void TrajCastIntegrator::stateChanged(OpenMM::State::DataType changed) {
    if (changed == OpenMM::State::Energy) // the last one of a checkpoint that was loaded
        loading_ = false;
    const bool moved = changed == OpenMM::State::Positions || changed == OpenMM::State::Velocities;
    if (moved && !own_change_ && !loading_ && run_ && run_->guard())
        run_->guard()->reset();
}

void TrajCastIntegrator::step(int steps) {
    if (!context || !run_)
        throw OpenMMException("this integrator is not bound to a Context");
    for (int k = 0; k < steps; k++)
        stride();
}

void TrajCastIntegrator::stride() {
    const std::int64_t number = context->getStepCount();
    context->updateContextState();
    std::vector<Vec3> positions, velocities, box(3);
    context->getPositions(positions);
    context->getVelocities(velocities);
    context->getPeriodicBoxVectors(box[0], box[1], box[2]);
    const bool other = next_step_ >= 0 && number != next_step_; // another integrator was at work between
    const bool strained = !box_.empty() && box != box_;
    if ((other || strained) && run_->guard())
        run_->guard()->reset();
    box_ = box;
    rethrow_as_openmm([&] {
        const GilRelease released;
        State state{tensor_of(positions, units::ANGSTROM_PER_NM), tensor_of(velocities, FS_NM_PER_PS_ANGSTROM)};
        const at::Tensor cell = periodic_ ? tensor_of(box, units::ANGSTROM_PER_NM) : at::zeros({3, 3}, at::kDouble);
        run_->step(state, cell, number);
        positions = vectors_of(state.positions, units::ANGSTROM_PER_NM);
        velocities = vectors_of(state.velocities, FS_NM_PER_PS_ANGSTROM);
    });
    own_change_ = true;
    context->setPositions(positions);
    context->setVelocities(velocities);
    own_change_ = false;
    context->setTime(context->getTime() + getStepSize());
    context->setStepCount(number + 1);
    next_step_ = number + 1;
}

double TrajCastIntegrator::computeKineticEnergy() {
    std::vector<Vec3> velocities;
    context->getVelocities(velocities);
    const OpenMM::System &system = context->getSystem();
    double twice = 0;
    for (std::size_t i = 0; i < velocities.size(); i++)
        twice += system.getParticleMass(static_cast<int>(i)) * velocities[i].dot(velocities[i]);
    return 0.5 * twice;
}

std::vector<Vec3> TrajCastIntegrator::getVelocitiesForTemperature(const OpenMM::System &system, double temperature,
                                                                  int randomSeed) const {
    if (!context || !run_)
        throw OpenMMException("velocities of a temperature need the masses of a Context; make the Context first");
    if (!(temperature >= 0 && std::isfinite(temperature)))
        throw OpenMMException("a temperature is a number, 0 or more; found " + std::to_string(temperature) + " K");
    std::vector<Vec3> positions;
    context->getPositions(positions);
    const auto elsewhere = [&](const Vec3 &r) { return r != positions.front(); };
    if (!periodic_ && system.getNumParticles() > 1 && std::none_of(positions.begin(), positions.end(), elsewhere))
        throw OpenMMException("velocities without angular momentum need positions, and these are not set; call "
                              "setPositions() first");
    return rethrow_as_openmm([&] {
        SplitMix64 random(static_cast<std::uint64_t>(randomSeed));
        return vectors_of(thermal_velocities(tensor_of(positions, units::ANGSTROM_PER_NM), run_->atoms().masses,
                                             run_->conserves_angular_momentum(), temperature, random),
                          FS_NM_PER_PS_ANGSTROM);
    });
}

std::vector<std::int64_t> TrajCastIntegrator::state() const {
    std::vector<std::int64_t> words = run_->state();
    words.push_back(next_step_);
    return words;
}

void TrajCastIntegrator::set_state(const std::vector<std::int64_t> &state) {
    if (state.empty())
        throw OpenMMException("the checkpoint has no state of this integrator");
    rethrow_as_openmm([&] { run_->set_state({state.begin(), state.end() - 1}); });
    next_step_ = state.back();
}

void TrajCastIntegrator::createCheckpoint(std::ostream &stream) const {
    const std::vector<std::int64_t> words = state();
    const auto count = static_cast<std::int64_t>(words.size());
    stream.write(reinterpret_cast<const char *>(&count), sizeof(count));
    stream.write(reinterpret_cast<const char *>(words.data()), count * static_cast<std::int64_t>(sizeof(count)));
}

void TrajCastIntegrator::loadCheckpoint(std::istream &stream) {
    std::int64_t count = 0;
    stream.read(reinterpret_cast<char *>(&count), sizeof(count));
    if (!stream || count < 0 || count > 1000)
        throw OpenMMException("the checkpoint was not written by this integrator; use one of the same kind of run");
    std::vector<std::int64_t> words(static_cast<std::size_t>(count));
    stream.read(reinterpret_cast<char *>(words.data()), count * static_cast<std::int64_t>(sizeof(count)));
    if (!stream)
        throw OpenMMException("the checkpoint is truncated");
    set_state(words);
    loading_ = true;
}

void TrajCastIntegrator::serializeParameters(OpenMM::SerializationNode &node) const {
    std::ostringstream text;
    for (const std::int64_t word : state())
        text << word << ' ';
    node.setStringProperty("trajcast", text.str());
}

void TrajCastIntegrator::deserializeParameters(const OpenMM::SerializationNode &node) {
    if (!node.hasProperty("trajcast")) // the State of another integrator
        return;
    std::istringstream text(node.getStringProperty("trajcast"));
    set_state({std::istream_iterator<std::int64_t>(text), {}});
}

} // namespace equistride
