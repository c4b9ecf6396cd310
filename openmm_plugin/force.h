// The OpenMM force that runs a trained model on every platform.
#pragma once

#include "export.h"
#include "tested_model.h"

#include <openmm/Force.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace equistride {

/// A force whose energy is a TorchScript model. Two kinds of file are served:
///
/// - an equistride artifact of the kind `potential`; it needs setElements(), and gets its neighbours from us. Where
///   its model knows charge and spin, it has two global parameters of these names, with the file's values;
/// - a module of the TorchForce contract: forward(positions nm [n, 3][, box vectors nm [3, 3]][, each global
///   parameter]) -> energy kJ/mol, or (energy, forces kJ/mol/nm) with setOutputsForces(true).
///
/// Every method raises OpenMM::OpenMMException or c10::Error with a sentence.
class EQUISTRIDE_OPENMM_API EquistrideForce : public OpenMM::Force {
public:
    /// @param model       content of the model file; shared, never changed
    /// @param file        its name, for getFile() and messages
    /// @param properties  see setProperty()
    EquistrideForce(std::shared_ptr<const std::string> model, const std::string &file,
                    const std::map<std::string, std::string> &properties = {});

    const std::string &getFile() const { return file_; }
    const std::shared_ptr<const std::string> &getModel() const { return model_; }
    bool isArtifact() const { return artifact_ != nullptr; }
    /// Raises where the model is no artifact.
    const Metadata &getMetadata() const;
    /// The artifact's model for a Context.
    std::unique_ptr<Model> takeModel() const { return artifact_->take(); }

    /// Element symbols, one for each particle of the force, in their order.
    void setElements(const std::vector<std::string> &elements);
    const std::vector<std::string> &getElements() const { return elements_; }
    /// Indices of the particles that the model sees; empty (the default) for all of the System.
    void setParticles(const std::vector<int> &particles);
    const std::vector<int> &getParticles() const { return particles_; }
    /// Pairs of particles that belong to one molecule, which OpenMM keeps whole in output and a barostat scales as one;
    /// they have no energy of their own. None by default.
    void setBonds(const std::vector<std::pair<int, int>> &bonds);
    const std::vector<std::pair<int, int>> &getBonds() const { return bonds_; }

    void setUsesPeriodicBoundaryConditions(bool periodic) { periodic_ = periodic; }
    bool usesPeriodicBoundaryConditions() const override { return periodic_; }
    void setOutputsForces(bool outputs);
    bool getOutputsForces() const { return outputs_forces_; }

    int getNumGlobalParameters() const { return static_cast<int>(parameters_.size()); }
    int addGlobalParameter(const std::string &name, double defaultValue);
    const std::string &getGlobalParameterName(int index) const;
    void setGlobalParameterName(int index, const std::string &name);
    double getGlobalParameterDefaultValue(int index) const;
    void setGlobalParameterDefaultValue(int index, double value);
    void addEnergyParameterDerivative(const std::string &name);
    int getNumEnergyParameterDerivatives() const { return static_cast<int>(derivatives_.size()); }
    const std::string &getEnergyParameterDerivativeName(int index) const;

    /// device: auto, cpu, cuda, cuda:1 ...; precision: auto, single, double.
    /// On the Reference and the CPU platform also: maxForce (eV/A), maxTemperature (K) and minDistance (A), 0 for none,
    /// at which a step stops or warns (onBound: stop, warn); brokenFrame, the file for the frame of an error.
    /// useCUDAGraphs (only false) and CUDAGraphWarmupSteps are there for scripts that were written for openmm-torch.
    void setProperty(const std::string &name, const std::string &value);
    const std::map<std::string, std::string> &getProperties() const { return properties_; }

protected:
    OpenMM::ForceImpl *createImpl() const override;

private:
    struct GlobalParameter {
        std::string name;
        double value;
    };
    const GlobalParameter &parameter(int index) const;

    std::shared_ptr<const std::string> model_;
    std::string file_;
    std::unique_ptr<TestedModel> artifact_; // null for a plain module
    std::vector<std::string> elements_;
    std::vector<int> particles_;
    std::vector<std::pair<int, int>> bonds_;
    std::vector<GlobalParameter> parameters_;
    std::vector<std::string> derivatives_;
    std::map<std::string, std::string> properties_;
    bool periodic_ = false;
    bool outputs_forces_ = false;
};

} // namespace equistride
