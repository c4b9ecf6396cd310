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
        artifact_ = std::make_unique<TestedModel>(model_, name_of(file_));
    });
    if (getMetadata().is_potential())
        throw OpenMMException(name_of(file_) + " is a " + getMetadata().kind +
                              ", which has forces and moves no atoms; expected a propagator; use create_force and an "
                              "integrator of OpenMM for it");
    stride_fs_ = getMetadata().stride_fs;
    setConstraintTolerance(1e-5);
}

TrajCastIntegrator::~TrajCastIntegrator() = default;

void TrajCastIntegrator::setElements(const std::vector<std::string> &elements) {
    rethrow_as_openmm([&] {
        for (const std::string &element : elements)
            getMetadata().species_index(element);
    });
    elements_ = elements;
}

void TrajCastIntegrator::setThermostat(const Thermostat &thermostat) {
    rethrow_as_openmm([&] {
        thermostat.check();
        if (run_)
            run_->run().set_thermostat(thermostat);
    });
    thermostat_ = thermostat;
}

void TrajCastIntegrator::setGuard(const Watch &watch) {
    if (run_)
        throw OpenMMException("a guard is set before the Context is made");
    rethrow_as_openmm([&] {
        const GilRelease released;
        watch.settings.check();
        auto artifact = std::make_shared<TestedModel>(watch.model, name_of(watch.file));
        const std::string &kind = artifact->metadata().kind;
        TORCH_CHECK_VALUE(kind == "potential", "a guard needs the energy of a potential; found a ", kind,
                          "; give it a potential of the same system");
        watch_ = {watch.model, watch.file, watch.settings, std::move(artifact)};
    });
}

std::map<std::string, double> TrajCastIntegrator::getGuardStatistics() const {
    Guard *guard = run_ ? run_->run().guard() : nullptr;
    return guard ? guard->statistics() : std::map<std::string, double>{};
}

void TrajCastIntegrator::setBarostat(const BarostatSettings &settings) {
    if (run_)
        throw OpenMMException("a barostat is set before the Context is made");
    rethrow_as_openmm([&] { settings.check(); });
    barostat_ = settings;
}

std::map<std::string, double> TrajCastIntegrator::getBarostatStatistics() const {
    const Barostat *barostat = run_ ? run_->run().barostat() : nullptr;
    return barostat ? barostat->statistics() : std::map<std::string, double>{};
}

double TrajCastIntegrator::getStepSize() const { return stride_fs_ / units::FS_PER_PS; }

double TrajCastIntegrator::getConstraintTolerance() const {
    if (run_)
        throw OpenMMException(
            "a propagator moves the atoms without forces and has no constraints, so that minimizeEnergy, "
            "which asks for their tolerance, would move nothing; minimize in a System of a potential "
            "(create_system with its artifact), and set the positions here");
    return Integrator::getConstraintTolerance();
}

void TrajCastIntegrator::setStepSize(double size) {
    const Metadata &metadata = getMetadata();
    const auto index = metadata.stride_index(size * units::FS_PER_PS);
    if (!index) {
        std::ostringstream text;
        text << "the step of a propagator is the stride that it was trained for; expected "
             << metadata.strides_in_words(units::FS_PER_PS) << " ps; found " << size
             << " ps; train a model for another stride";
        throw OpenMMException(text.str());
    }
    if (run_)
        rethrow_as_openmm([&] { run_->run().set_stride(metadata.strides_fs[*index]); });
    stride_fs_ = metadata.strides_fs[*index];
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
    const std::vector<std::string> names = {MoveAtomsKernel::Name()};
    on_device_ = made.getPlatform().supportsKernels(names);
    rethrow_as_openmm([&] {
        const GilRelease released;
        at::Device automatic = at::hasCUDA() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
        if (on_device_) {
            mover_ = made.getPlatform().createKernel(MoveAtomsKernel::Name(), made);
            automatic = mover().device();
        }
        const at::Device device = choose_device(device_, automatic);
        on_device_ = on_device_ && device == automatic; // else the user wants the network elsewhere
        const Atoms atoms{elements_, at::tensor(masses, at::kDouble).unsqueeze(1), at::full({3}, periodic_, at::kBool)};
        const auto seed = seed_ == 0 ? std::random_device()() : static_cast<std::uint64_t>(seed_);
        run_ = std::make_unique<SystemPropagation>(artifact_->take(), atoms, thermostat_, seed, device);
        run_->run().set_stride(stride_fs_);
        if (watch_)
            run_->set_guard(watch_->settings, watch_->artifact->take());
        if (barostat_)
            run_->set_barostat(*barostat_);
        if (on_device_) {
            mover().initialize(made);
            run_->stay_on_device();
        }
    });
    began_ = State();
    context = &made;
    owner = &made.getOwner();
    next_step_ = -1;
    box_.clear();
}

void TrajCastIntegrator::cleanup() {
    run_.reset();
    began_ = State();
    mover_ = OpenMM::Kernel();
    on_device_ = false;
}

void TrajCastIntegrator::stateChanged(OpenMM::State::DataType changed) {
    if (changed == OpenMM::State::Energy) // the last one of a checkpoint that was loaded
        loading_ = false;
    const bool moved = changed == OpenMM::State::Positions || changed == OpenMM::State::Velocities;
    if (moved && !own_change_ && !loading_ && run_ && run_->run().guard())
        run_->run().guard()->reset();
}

void TrajCastIntegrator::step(int steps) {
    if (!context || !run_)
        throw OpenMMException("this integrator is not bound to a Context");
    for (int k = 0; k < steps; k++)
        stride();
    if (on_device_)
        rethrow_as_openmm([&] {
            const GilRelease released;
            or_take_back([&] { run_->finish(); });
        });
}

void TrajCastIntegrator::stride() {
    const std::int64_t number = context->getStepCount();
    Vectors box(3), old_positions, old_velocities;
    if (!on_device_) {
        context->getPositions(old_positions);
        context->getVelocities(old_velocities);
    }
    context->updateContextState();
    context->getPeriodicBoxVectors(box[0], box[1], box[2]);
    const bool other = next_step_ >= 0 && number != next_step_; // another integrator was at work between
    const bool strained = !box_.empty() && box != box_;
    if ((other || strained) && run_->run().guard())
        run_->run().guard()->reset();
    box_ = box;
    const at::Tensor given = periodic_ ? tensor_of(box, units::ANGSTROM_PER_NM) : at::zeros({3, 3}, at::kDouble);
    at::Tensor cell = given;
    if (on_device_)
        stride_on_device(cell, number);
    else
        stride_of_vectors(cell, number, old_positions, old_velocities);
    if (!cell.is_same(given)) // a barostat's
        put_box(cell);
    context->setTime(context->getTime() + getStepSize());
    context->setStepCount(number + 1);
    next_step_ = number + 1;
}

void TrajCastIntegrator::put(const Vectors &positions, const Vectors &velocities) {
    own_change_ = true;
    context->setPositions(positions);
    context->setVelocities(velocities);
    own_change_ = false;
}

void TrajCastIntegrator::put_box(const at::Tensor &cell) {
    box_ = vectors_of(cell, units::ANGSTROM_PER_NM);
    context->setPeriodicBoxVectors(box_[0], box_[1], box_[2]);
}

void TrajCastIntegrator::stride_of_vectors(at::Tensor &cell, std::int64_t number, const Vectors &old_positions,
                                           const Vectors &old_velocities) {
    Vectors positions, velocities;
    context->getPositions(positions);
    context->getVelocities(velocities);
    try {
        rethrow_as_openmm([&] {
            const GilRelease released;
            State state{tensor_of(positions, units::ANGSTROM_PER_NM), tensor_of(velocities, FS_NM_PER_PS_ANGSTROM)};
            run_->step(state, cell, number);
            positions = vectors_of(state.positions, units::ANGSTROM_PER_NM);
            velocities = vectors_of(state.velocities, FS_NM_PER_PS_ANGSTROM);
        });
    } catch (const OpenMMException &) {
        if (positions != old_positions || velocities != old_velocities) // by other forces, CMMotionRemover say
            put(old_positions, old_velocities);
        throw;
    }
    put(positions, velocities);
}

void TrajCastIntegrator::stride_on_device(at::Tensor &cell, std::int64_t number) {
    rethrow_as_openmm([&] {
        const GilRelease released;
        State began;
        or_take_back([&] {
            mover().move(*context, [&](State &state) {
                began = {state.positions.clone(), state.velocities.clone()};
                run_->step(state, cell, number);
            });
        });
        began_ = began;
    });
}

template <class Body> void TrajCastIntegrator::or_take_back(Body body) {
    try {
        body();
    } catch (...) {
        if (run_->failed() && began_.positions.defined()) {
            mover().move(*context, [&](State &state) { state = began_; });
            context->setTime(context->getTime() - getStepSize());
            context->setStepCount(context->getStepCount() - 1);
            next_step_ = context->getStepCount();
        }
        began_ = State();
        throw;
    }
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
        return vectors_of(run_->thermal_velocities(tensor_of(positions, units::ANGSTROM_PER_NM), temperature,
                                                   static_cast<std::uint64_t>(randomSeed)),
                          FS_NM_PER_PS_ANGSTROM);
    });
}

// The run's state, after the number of the step that comes next.
std::string TrajCastIntegrator::state() const { return std::to_string(next_step_) + ' ' + run_->run().state(); }

void TrajCastIntegrator::set_state(const std::string &state) {
    std::istringstream text(state);
    std::int64_t next = 0;
    text >> next >> std::ws;
    const std::string rest(std::istreambuf_iterator<char>(text), {});
    rethrow_as_openmm([&] { run_->run().set_state(rest); });
    stride_fs_ = run_->run().stride_fs();
    next_step_ = next;
    box_.clear(); // that of the state comes with it, and is no strain
}

void TrajCastIntegrator::createCheckpoint(std::ostream &stream) const {
    const std::string text = state();
    const auto size = static_cast<std::int64_t>(text.size());
    stream.write(reinterpret_cast<const char *>(&size), sizeof(size));
    stream.write(text.data(), size);
}

void TrajCastIntegrator::loadCheckpoint(std::istream &stream) {
    constexpr std::int64_t MOST = 100000;
    std::int64_t size = 0;
    stream.read(reinterpret_cast<char *>(&size), sizeof(size));
    if (!stream || size < 0 || size > MOST)
        throw OpenMMException("the checkpoint was not written by this integrator; use one of the same kind of run");
    std::string text(static_cast<std::size_t>(size), '\0');
    stream.read(text.data(), size);
    if (!stream)
        throw OpenMMException("the checkpoint is truncated");
    set_state(text);
    loading_ = true;
}

void TrajCastIntegrator::serializeParameters(OpenMM::SerializationNode &node) const {
    node.setStringProperty("trajcast", state());
}

void TrajCastIntegrator::deserializeParameters(const OpenMM::SerializationNode &node) {
    if (node.hasProperty("trajcast")) // else it is the State of another integrator
        set_state(node.getStringProperty("trajcast"));
}

} // namespace equistride
