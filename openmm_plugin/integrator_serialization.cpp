// XML for TrajCastIntegrator: the models travel inside, so that it needs no other file.
#include "base64.h"
#include "equistride/units.h"
#include "errors.h"
#include "integrator.h"

#include <openmm/serialization/SerializationNode.h>
#include <openmm/serialization/SerializationProxy.h>

#include <cmath>
#include <limits>

using OpenMM::OpenMMException;
using OpenMM::SerializationNode;

namespace equistride {
namespace {

constexpr int VERSION = 3; // 2: a barostat; 3: a step that is not the one that the model begins with

TrajCastIntegrator::Bytes decode(const SerializationNode &node) {
    return std::make_shared<const std::string>(base64_decode(node.getStringProperty("model")));
}

void write_guard(const TrajCastIntegrator::Watch &watch, SerializationNode &node) {
    const GuardSettings &settings = watch.settings;
    node.setStringProperty("file", watch.file);
    node.setStringProperty("mode", settings.mode);
    node.setLongProperty("every", settings.every);
    if (std::isfinite(settings.bound))
        node.setDoubleProperty("bound", settings.bound);
    node.setBoolProperty("rescale", settings.rescale);
    node.setDoubleProperty("substep", settings.substep);
    node.setStringProperty("model", base64_encode(*watch.model));
}

TrajCastIntegrator::Watch read_guard(const SerializationNode &node) {
    constexpr double NONE = std::numeric_limits<double>::infinity();
    return {decode(node),
            node.getStringProperty("file"),
            {node.getStringProperty("mode"), node.getLongProperty("every"),
             node.hasProperty("bound") ? node.getDoubleProperty("bound") : NONE, node.getBoolProperty("rescale"),
             node.getDoubleProperty("substep")}};
}

class IntegratorProxy final : public OpenMM::SerializationProxy {
public:
    IntegratorProxy() : SerializationProxy("TrajCastIntegrator") {}

    void serialize(const void *object, SerializationNode &node) const override {
        const auto &integrator = *static_cast<const TrajCastIntegrator *>(object);
        const Thermostat &thermostat = integrator.getThermostat();
        const bool chosen = integrator.getStepSize() != integrator.getMetadata().stride_fs / units::FS_PER_PS;
        node.setIntProperty("version", chosen ? VERSION : integrator.getBarostat() ? 2 : 1);
        if (chosen)
            node.setDoubleProperty("stepSize", integrator.getStepSize());
        node.setStringProperty("file", integrator.getFile());
        node.setBoolProperty("usesPeriodic", integrator.usesPeriodicBoundaryConditions());
        node.setStringProperty("thermostat", thermostat.kind);
        node.setDoubleProperty("temperature", thermostat.temperature);
        node.setDoubleProperty("time", thermostat.time);
        node.setDoubleProperty("tau", thermostat.tau);
        node.setIntProperty("randomSeed", integrator.getRandomNumberSeed());
        node.setStringProperty("device", integrator.getDevice());
        node.setIntProperty("integrationForceGroups", integrator.getIntegrationForceGroups());
        node.setStringProperty("model", base64_encode(*integrator.getModel()));
        SerializationNode &elements = node.createChildNode("Elements");
        for (const std::string &element : integrator.getElements())
            elements.createChildNode("Element").setStringProperty("symbol", element);
        SerializationNode &guards = node.createChildNode("Guards");
        if (integrator.getGuard())
            write_guard(*integrator.getGuard(), guards.createChildNode("Guard"));
        if (integrator.getBarostat()) {
            SerializationNode &barostat = node.createChildNode("Barostat");
            barostat.setDoubleProperty("pressure", integrator.getBarostat()->pressure);
            barostat.setLongProperty("every", integrator.getBarostat()->every);
            barostat.setStringProperty("axes", integrator.getBarostat()->axes);
        }
    }

    void *deserialize(const SerializationNode &node) const override {
        const int version = node.getIntProperty("version");
        if (version < 1 || version > VERSION)
            throw OpenMMException("the XML of a TrajCastIntegrator has an unknown version; expected up to " +
                                  std::to_string(VERSION) + "; found " + std::to_string(version) +
                                  "; update equistride");
        auto integrator = std::make_unique<TrajCastIntegrator>(decode(node), node.getStringProperty("file"));
        if (node.hasProperty("stepSize"))
            integrator->setStepSize(node.getDoubleProperty("stepSize"));
        integrator->setUsesPeriodicBoundaryConditions(node.getBoolProperty("usesPeriodic"));
        integrator->setThermostat({node.getStringProperty("thermostat"), node.getDoubleProperty("temperature"),
                                   node.getDoubleProperty("time"), node.getDoubleProperty("tau", 0.0)});
        integrator->setRandomNumberSeed(node.getIntProperty("randomSeed"));
        integrator->setDevice(node.getStringProperty("device"));
        integrator->setIntegrationForceGroups(node.getIntProperty("integrationForceGroups"));
        std::vector<std::string> elements;
        for (const SerializationNode &child : node.getChildNode("Elements").getChildren())
            elements.push_back(child.getStringProperty("symbol"));
        integrator->setElements(elements);
        for (const SerializationNode &child : node.getChildNode("Guards").getChildren())
            integrator->setGuard(read_guard(child));
        for (const SerializationNode &child : node.getChildren())
            if (child.getName() == "Barostat")
                integrator->setBarostat({child.getDoubleProperty("pressure"), child.getLongProperty("every"),
                                         child.getStringProperty("axes")});
        return integrator.release();
    }
};

__attribute__((constructor)) void register_proxy() {
    OpenMM::SerializationProxy::registerProxy(typeid(TrajCastIntegrator), new IntegratorProxy);
}

} // namespace
} // namespace equistride
