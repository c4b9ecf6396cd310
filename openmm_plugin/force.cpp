#include "force.h"

#include "errors.h"
#include "evaluator.h"
#include "force_impl.h"
#include "gil.h"
#include "step_watch.h"

#include <algorithm>

using OpenMM::OpenMMException;

namespace equistride {
namespace {

const std::map<std::string, std::string> DEFAULT_PROPERTIES = {
    {"device", "auto"}, {"precision", "auto"},   {"useCUDAGraphs", "false"}, {"CUDAGraphWarmupSteps", "10"},
    {"maxForce", "0"},  {"maxTemperature", "0"}, {"minDistance", "0"},       {"onBound", "stop"},
    {"brokenFrame", ""}};

void check_choice(const std::string &name, const std::string &value, const std::vector<std::string> &choices) {
    if (std::find(choices.begin(), choices.end(), value) != choices.end())
        return;
    std::string list;
    for (const std::string &choice : choices)
        list += (list.empty() ? "'" : ", '") + choice + "'";
    throw OpenMMException("the property '" + name + "' has an unknown value; expected one of " + list + "; found '" +
                          value + "'");
}

} // namespace

EquistrideForce::EquistrideForce(std::shared_ptr<const std::string> model, const std::string &file,
                                 const std::map<std::string, std::string> &properties)
    : model_(std::move(model)), file_(file), properties_(DEFAULT_PROPERTIES) {
    setName("EquistrideForce");
    for (const auto &[name, value] : properties)
        setProperty(name, value);
    const std::string name = file_.empty() ? "the model" : file_;
    rethrow_as_openmm([&] {
        const GilRelease released;
        const ArchiveInfo info = inspect_archive(model_, name);
        if (info.metadata.empty()) {
            check_torchforce_module(model_, name);
            return;
        }
        const std::string kind = read_metadata(info.metadata, name).kind;
        if (kind != "potential")
            throw OpenMMException(name + " is a " + kind +
                                  ", which moves atoms and has no forces; expected a potential; use the propagating "
                                  "integrator for it");
        artifact_ = std::make_unique<TestedModel>(model_, info, name);
        const Metadata &metadata = artifact_->metadata();
        if (metadata.charge_spin == Metadata::ChargeSpin::input)
            parameters_ = {{"charge", metadata.charge}, {"spin", metadata.spin}};
    });
}

const Metadata &EquistrideForce::getMetadata() const {
    if (!artifact_)
        throw OpenMMException("the model of this force is a plain TorchScript module and has no metadata; export it "
                              "with equistride to get them");
    return artifact_->metadata();
}

void EquistrideForce::setElements(const std::vector<std::string> &elements) {
    const Metadata &metadata = getMetadata();
    rethrow_as_openmm([&] {
        for (const std::string &element : elements)
            metadata.species_index(element);
    });
    elements_ = elements;
}

void EquistrideForce::setParticles(const std::vector<int> &particles) {
    std::vector<int> sorted = particles;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end())
        throw OpenMMException("the particles of a force must differ; found " + std::to_string(*twice) + " twice");
    if (!sorted.empty() && sorted.front() < 0)
        throw OpenMMException("the index of a particle is negative: " + std::to_string(sorted.front()));
    particles_ = particles;
}

void EquistrideForce::setBonds(const std::vector<std::pair<int, int>> &bonds) {
    for (const auto &[first, second] : bonds)
        if (first < 0 || second < 0 || first == second)
            throw OpenMMException("a bond joins two particles of the System; found " + std::to_string(first) + " and " +
                                  std::to_string(second));
    bonds_ = bonds;
}

void EquistrideForce::setOutputsForces(bool outputs) {
    if (isArtifact() && !outputs)
        throw OpenMMException("an equistride artifact always gives forces; setOutputsForces() is for plain modules");
    outputs_forces_ = outputs;
}

int EquistrideForce::addGlobalParameter(const std::string &name, double defaultValue) {
    if (isArtifact())
        throw OpenMMException("an equistride artifact takes no global parameters but the charge and spin that its "
                              "model knows; found '" +
                              name + "'; scale it with openmm.CustomCVForce instead");
    for (const GlobalParameter &other : parameters_)
        if (other.name == name)
            throw OpenMMException("the global parameter '" + name + "' is there already");
    parameters_.push_back({name, defaultValue});
    return getNumGlobalParameters() - 1;
}

const EquistrideForce::GlobalParameter &EquistrideForce::parameter(int index) const {
    if (index < 0 || index >= getNumGlobalParameters())
        throw OpenMMException("the index of a global parameter is out of range; expected less than " +
                              std::to_string(getNumGlobalParameters()) + "; found " + std::to_string(index));
    return parameters_[static_cast<std::size_t>(index)];
}

const std::string &EquistrideForce::getGlobalParameterName(int index) const { return parameter(index).name; }

void EquistrideForce::setGlobalParameterName(int index, const std::string &name) {
    const std::string old = parameter(index).name;
    std::replace(derivatives_.begin(), derivatives_.end(), old, name);
    parameters_[static_cast<std::size_t>(index)].name = name;
}

double EquistrideForce::getGlobalParameterDefaultValue(int index) const { return parameter(index).value; }

void EquistrideForce::setGlobalParameterDefaultValue(int index, double value) {
    parameter(index);
    parameters_[static_cast<std::size_t>(index)].value = value;
}

void EquistrideForce::addEnergyParameterDerivative(const std::string &name) {
    const auto known = [&](const GlobalParameter &p) { return p.name == name; };
    if (std::none_of(parameters_.begin(), parameters_.end(), known))
        throw OpenMMException("there is no global parameter '" + name + "'; add it with addGlobalParameter() first");
    if (isArtifact())
        throw OpenMMException("charge and spin are whole numbers, by which an energy has no derivative; found '" +
                              name + "'");
    if (std::find(derivatives_.begin(), derivatives_.end(), name) == derivatives_.end())
        derivatives_.push_back(name);
}

const std::string &EquistrideForce::getEnergyParameterDerivativeName(int index) const {
    if (index < 0 || index >= getNumEnergyParameterDerivatives())
        throw OpenMMException("the index of an energy derivative is out of range; expected less than " +
                              std::to_string(getNumEnergyParameterDerivatives()) + "; found " + std::to_string(index));
    return derivatives_[static_cast<std::size_t>(index)];
}

void EquistrideForce::setProperty(const std::string &name, const std::string &value) {
    if (!DEFAULT_PROPERTIES.contains(name))
        throw OpenMMException(
            "the property '" + name +
            "' is not known; expected device, precision, maxForce, maxTemperature, minDistance, onBound, "
            "brokenFrame, useCUDAGraphs or CUDAGraphWarmupSteps");
    if (name == "precision")
        check_choice(name, value, {"auto", "single", "double"});
    if (name == "useCUDAGraphs")
        check_choice(name, value, {"false"});
    if (name == "onBound")
        check_choice(name, value, {"stop", "warn"});
    std::map<std::string, std::string> changed = properties_;
    changed[name] = value;
    rethrow_as_openmm([&] { Bounds{changed}; });
    properties_ = std::move(changed);
}

OpenMM::ForceImpl *EquistrideForce::createImpl() const { return new EquistrideForceImpl(*this); }

} // namespace equistride
