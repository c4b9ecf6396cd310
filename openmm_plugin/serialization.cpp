// XML for EquistrideForce: the model travels inside, so that a System needs no other file.
#include "base64.h"
#include "errors.h"
#include "force.h"

#include <openmm/serialization/SerializationNode.h>
#include <openmm/serialization/SerializationProxy.h>

using OpenMM::OpenMMException;
using OpenMM::SerializationNode;

namespace equistride {
namespace {

constexpr int VERSION = 1;

class ForceProxy final : public OpenMM::SerializationProxy {
public:
    ForceProxy() : SerializationProxy("EquistrideForce") {}

    void serialize(const void *object, SerializationNode &node) const override {
        const auto &force = *static_cast<const EquistrideForce *>(object);
        node.setIntProperty("version", VERSION);
        node.setIntProperty("forceGroup", force.getForceGroup());
        node.setStringProperty("name", force.getName());
        node.setStringProperty("file", force.getFile());
        node.setBoolProperty("usesPeriodic", force.usesPeriodicBoundaryConditions());
        node.setBoolProperty("outputsForces", force.getOutputsForces());
        node.setStringProperty("model", base64_encode(*force.getModel()));
        SerializationNode &properties = node.createChildNode("Properties");
        for (const auto &[name, value] : force.getProperties())
            properties.createChildNode("Property").setStringProperty("name", name).setStringProperty("value", value);
        SerializationNode &parameters = node.createChildNode("GlobalParameters");
        for (int i = 0; i < force.getNumGlobalParameters(); i++)
            parameters.createChildNode("Parameter")
                .setStringProperty("name", force.getGlobalParameterName(i))
                .setDoubleProperty("default", force.getGlobalParameterDefaultValue(i));
        SerializationNode &derivatives = node.createChildNode("EnergyParameterDerivatives");
        for (int i = 0; i < force.getNumEnergyParameterDerivatives(); i++)
            derivatives.createChildNode("Parameter")
                .setStringProperty("name", force.getEnergyParameterDerivativeName(i));
        SerializationNode &particles = node.createChildNode("Particles");
        for (const int particle : force.getParticles())
            particles.createChildNode("Particle").setIntProperty("index", particle);
        SerializationNode &bonds = node.createChildNode("Bonds");
        for (const auto &[first, second] : force.getBonds())
            bonds.createChildNode("Bond").setIntProperty("p1", first).setIntProperty("p2", second);
        SerializationNode &elements = node.createChildNode("Elements");
        for (const std::string &element : force.getElements())
            elements.createChildNode("Element").setStringProperty("symbol", element);
    }

    void *deserialize(const SerializationNode &node) const override {
        const int version = node.getIntProperty("version");
        if (version < 1 || version > VERSION)
            throw OpenMMException("the XML of an EquistrideForce has an unknown version; expected up to " +
                                  std::to_string(VERSION) + "; found " + std::to_string(version) +
                                  "; update equistride");
        std::map<std::string, std::string> properties;
        for (const SerializationNode &child : node.getChildNode("Properties").getChildren())
            properties[child.getStringProperty("name")] = child.getStringProperty("value");
        auto model = std::make_shared<const std::string>(base64_decode(node.getStringProperty("model")));
        auto force = std::make_unique<EquistrideForce>(std::move(model), node.getStringProperty("file"), properties);
        force->setForceGroup(node.getIntProperty("forceGroup"));
        force->setName(node.getStringProperty("name"));
        force->setUsesPeriodicBoundaryConditions(node.getBoolProperty("usesPeriodic"));
        if (node.getBoolProperty("outputsForces"))
            force->setOutputsForces(true);
        int index = 0;
        for (const SerializationNode &child : node.getChildNode("GlobalParameters").getChildren()) {
            const std::string &parameter = child.getStringProperty("name");
            if (index < force->getNumGlobalParameters()) { // charge and spin of an artifact
                force->setGlobalParameterName(index, parameter);
                force->setGlobalParameterDefaultValue(index, child.getDoubleProperty("default"));
            } else
                force->addGlobalParameter(parameter, child.getDoubleProperty("default"));
            index++;
        }
        for (const SerializationNode &child : node.getChildNode("EnergyParameterDerivatives").getChildren())
            force->addEnergyParameterDerivative(child.getStringProperty("name"));
        std::vector<int> particles;
        for (const SerializationNode &child : node.getChildNode("Particles").getChildren())
            particles.push_back(child.getIntProperty("index"));
        force->setParticles(particles);
        std::vector<std::pair<int, int>> bonds;
        for (const SerializationNode &child : node.getChildren())
            if (child.getName() == "Bonds") // files of earlier versions have none
                for (const SerializationNode &bond : child.getChildren())
                    bonds.emplace_back(bond.getIntProperty("p1"), bond.getIntProperty("p2"));
        force->setBonds(bonds);
        std::vector<std::string> elements;
        for (const SerializationNode &child : node.getChildNode("Elements").getChildren())
            elements.push_back(child.getStringProperty("symbol"));
        if (!elements.empty())
            force->setElements(elements);
        return force.release();
    }
};

__attribute__((constructor)) void register_proxy() {
    OpenMM::SerializationProxy::registerProxy(typeid(EquistrideForce), new ForceProxy);
}

} // namespace
} // namespace equistride

// What Platform::loadPluginLibrary() looks for; the proxy is registered when the library is loaded.
extern "C" EQUISTRIDE_OPENMM_API void registerPlatforms() {}
extern "C" EQUISTRIDE_OPENMM_API void registerKernelFactories() {}
