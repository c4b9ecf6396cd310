#include "propagator_mark.h"

#include "integrator.h"
#include "system_checks.h"

#include <openmm/CompoundIntegrator.h>
#include <openmm/OpenMMException.h>
#include <openmm/internal/ContextImpl.h>
#include <openmm/internal/ForceImpl.h>
#include <openmm/serialization/SerializationNode.h>
#include <openmm/serialization/SerializationProxy.h>

using OpenMM::OpenMMException;
using OpenMM::SerializationNode;

namespace equistride {
namespace {

bool strides(const OpenMM::Integrator &integrator) {
    if (const auto *several = dynamic_cast<const OpenMM::CompoundIntegrator *>(&integrator)) {
        for (int i = 0; i < several->getNumIntegrators(); i++)
            if (strides(several->getIntegrator(i)))
                return true;
        return false;
    }
    return dynamic_cast<const TrajCastIntegrator *>(&integrator) != nullptr;
}

class MarkImpl final : public OpenMM::ForceImpl {
public:
    explicit MarkImpl(const PropagatorMark &owner) : owner_(owner) {}

    const OpenMM::Force &getOwner() const override { return owner_; }
    void initialize(OpenMM::ContextImpl &context) override {
        strides_ = strides(context.getIntegrator());
        has_forces_ = has_forces(context.getSystem());
        if (!strides_ && !has_forces_)
            throw OpenMMException("this System was made for a propagator and has no forces, so that its atoms would "
                                  "fly on in straight lines; expected a TrajCastIntegrator; found another integrator; "
                                  "make the System from a potential for that one");
    }
    double calcForcesAndEnergy(OpenMM::ContextImpl &, bool includeForces, bool, int) override {
        if (includeForces && strides_ && !has_forces_)
            throw OpenMMException("a propagator moves the atoms without forces, so that there are none to ask for; "
                                  "ask a System of a potential (create_system with its artifact)");
        return 0.0;
    }
    std::map<std::string, double> getDefaultParameters() override { return {}; }
    std::vector<std::string> getKernelNames() override { return {}; }

private:
    const PropagatorMark &owner_;
    bool strides_ = false, has_forces_ = false;
};

class MarkProxy final : public OpenMM::SerializationProxy {
public:
    MarkProxy() : SerializationProxy("PropagatorMark") {}

    void serialize(const void *object, SerializationNode &node) const override {
        const auto &mark = *static_cast<const PropagatorMark *>(object);
        node.setIntProperty("version", 1);
        node.setIntProperty("forceGroup", mark.getForceGroup());
        node.setStringProperty("name", mark.getName());
    }

    void *deserialize(const SerializationNode &node) const override {
        auto *mark = new PropagatorMark;
        mark->setForceGroup(node.getIntProperty("forceGroup"));
        mark->setName(node.getStringProperty("name"));
        return mark;
    }
};

__attribute__((constructor)) void register_proxy() {
    OpenMM::SerializationProxy::registerProxy(typeid(PropagatorMark), new MarkProxy);
}

} // namespace

OpenMM::ForceImpl *PropagatorMark::createImpl() const { return new MarkImpl(*this); }

} // namespace equistride
