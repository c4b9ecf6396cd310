// The OpenMM integrator that moves atoms by a propagator: one step is one stride of the network.
#pragma once

#include "export.h"
#include "kernel.h"
#include "propagation/system_propagation.h"
#include "tested_model.h"

#include <openmm/Integrator.h>
#include <openmm/Kernel.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace equistride {

/// Thermostat half-steps around a stride, with a guard or without. It needs no kernel, so it runs on every platform;
/// on one that offers a MoveAtomsKernel, positions and velocities stay on the device.
///
/// Every method raises OpenMM::OpenMMException or c10::Error with a sentence.
class EQUISTRIDE_OPENMM_API TrajCastIntegrator : public OpenMM::Integrator {
public:
    using Bytes = std::shared_ptr<const std::string>;
    /// A potential that watches over the strides.
    struct Watch {
        Bytes model;
        std::string file;
        GuardSettings settings;
        std::shared_ptr<TestedModel> artifact = nullptr; ///< made of these by setGuard()
    };

    /// @param model  content of an artifact of the kind `propagator`; shared, never changed
    /// @param file   its name, for messages
    TrajCastIntegrator(Bytes model, const std::string &file);
    ~TrajCastIntegrator() override;

    const std::string &getFile() const { return file_; }
    const Bytes &getModel() const { return model_; }
    const Metadata &getMetadata() const { return artifact_->metadata(); }

    /// Element symbols, one a particle; empty (the default) to tell them by the masses.
    void setElements(const std::vector<std::string> &elements);
    const std::vector<std::string> &getElements() const { return elements_; }
    /// Whether the model sees the box.
    void setUsesPeriodicBoundaryConditions(bool periodic) { periodic_ = periodic; }
    bool usesPeriodicBoundaryConditions() const { return periodic_; }
    /// The box of the topology [nm], against which a System is held whose own box nobody set; not in the XML.
    void setTopologyBox(const std::vector<OpenMM::Vec3> &vectors) { topology_box_ = vectors; }
    /// Times in fs. May be changed while a Context runs.
    void setThermostat(const Thermostat &thermostat);
    const Thermostat &getThermostat() const { return thermostat_; }
    /// 0 for another one in each Context.
    void setRandomNumberSeed(int seed) { seed_ = seed; }
    int getRandomNumberSeed() const { return seed_; }
    /// auto, cpu, cuda, cuda:1 ...
    void setDevice(const std::string &device) { device_ = device; }
    const std::string &getDevice() const { return device_; }
    void setGuard(const Watch &watch);
    const std::optional<Watch> &getGuard() const { return watch_; }
    /// What the guard did in this Context; empty without a guard.
    std::map<std::string, double> getGuardStatistics() const;
    /// Moves of the box between strides. It needs a guard, a thermostat and periodic boundary conditions.
    void setBarostat(const BarostatSettings &settings);
    const std::optional<BarostatSettings> &getBarostat() const { return barostat_; }
    /// What it did in this Context; empty without one.
    std::map<std::string, double> getBarostatStatistics() const;

    /// One of the model's strides [ps], in a running Context too; no other can be set. Relaxation times stay.
    double getStepSize() const override;
    void setStepSize(double size) override;
    void step(int steps) override;
    /// Raises OpenMM::OpenMMException once there is a Context: no constraint is allowed there, and the only one in
    /// OpenMM who asks is LocalEnergyMinimizer, which would find no forces and move nothing without a word.
    double getConstraintTolerance() const override;
    /// Velocities of exactly this temperature [K], without momentum, and without a box without angular momentum.
    std::vector<OpenMM::Vec3> getVelocitiesForTemperature(const OpenMM::System &system, double temperature,
                                                          int randomSeed) const override;

protected:
    void initialize(OpenMM::ContextImpl &context) override;
    void cleanup() override;
    std::vector<std::string> getKernelNames() override { return {}; }
    void stateChanged(OpenMM::State::DataType changed) override;
    double computeKineticEnergy() override;
    bool kineticEnergyRequiresForce() const override { return false; }
    void createCheckpoint(std::ostream &stream) const override;
    void loadCheckpoint(std::istream &stream) override;
    void serializeParameters(OpenMM::SerializationNode &node) const override;
    void deserializeParameters(const OpenMM::SerializationNode &node) override;

private:
    void stride();
    using Vectors = std::vector<OpenMM::Vec3>;
    /// Where it raises, positions and velocities are those given, of before other forces changed them.
    void stride_of_vectors(at::Tensor &cell, std::int64_t number, const Vectors &positions, const Vectors &velocities);
    void put(const Vectors &positions, const Vectors &velocities);
    void stride_on_device(at::Tensor &cell, std::int64_t number);
    void put_box(const at::Tensor &cell);
    MoveAtomsKernel &mover() { return mover_.getAs<MoveAtomsKernel>(); }
    /// Do what waits for the device; where a stride of before was wrong, go back to where it began.
    template <class Body> void or_take_back(Body body);
    std::string state() const;
    void set_state(const std::string &state);

    Bytes model_;
    std::string file_;
    std::unique_ptr<TestedModel> artifact_;
    double stride_fs_ = 0; // the one to be made
    std::vector<std::string> elements_;
    bool periodic_ = false;
    std::vector<OpenMM::Vec3> topology_box_; // empty: not known
    Thermostat thermostat_{"none"};
    int seed_ = 0;
    std::string device_ = "auto";
    std::optional<Watch> watch_;
    std::optional<BarostatSettings> barostat_;

    std::unique_ptr<SystemPropagation> run_; // while bound to a Context
    std::int64_t next_step_ = -1;            // the Context's step count after our last stride
    std::vector<OpenMM::Vec3> box_;          // [nm], of our last stride
    OpenMM::Kernel mover_;                   // of a platform that has the atoms on a device
    bool on_device_ = false;
    State began_; // where the last stride began there, until it is known to be fine
    bool own_change_ = false, loading_ = false;
};

} // namespace equistride
