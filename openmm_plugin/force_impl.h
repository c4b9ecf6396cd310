// What a Context runs for an EquistrideForce: its own kernel where the platform has one (CUDA), else host arrays.
#pragma once

#include "evaluator.h"
#include "step_watch.h"

#include <openmm/internal/CustomCPPForceImpl.h>

#include <optional>

namespace equistride {

class EquistrideForceImpl final : public OpenMM::CustomCPPForceImpl {
public:
    explicit EquistrideForceImpl(const EquistrideForce &owner) : CustomCPPForceImpl(owner), owner_(owner) {}

    const OpenMM::Force &getOwner() const override { return owner_; }
    void initialize(OpenMM::ContextImpl &context) override;
    std::map<std::string, double> getDefaultParameters() override;
    void updateContextState(OpenMM::ContextImpl &context, bool &forcesInvalid) override;
    double calcForcesAndEnergy(OpenMM::ContextImpl &context, bool includeForces, bool includeEnergy,
                               int groups) override;
    double computeForce(OpenMM::ContextImpl &context, const std::vector<OpenMM::Vec3> &positions,
                        std::vector<OpenMM::Vec3> &forces) override;
    /// The bonds of the force, but those of networks that go on through the box: such are no molecules.
    std::vector<std::pair<int, int>> getBondedParticles() const override;

private:
    void initialize_host(OpenMM::ContextImpl &context, const Bounds &bounds);
    double evaluate(OpenMM::ContextImpl &context, const std::vector<OpenMM::Vec3> &positions,
                    std::vector<OpenMM::Vec3> &forces);
    /// Call, and where that raises bring back the state of before the step.
    template <typename Function> auto watched(OpenMM::ContextImpl &context, Function &&function);
    void add_derivatives(OpenMM::ContextImpl &context, const std::vector<double> &derivatives) const;

    const EquistrideForce &owner_;
    OpenMM::ContextImpl *context_ = nullptr;
    std::unique_ptr<Evaluator> evaluator_;
    std::vector<std::int64_t> labels_; // indices in the System of the particles that the model sees
    std::optional<OpenMM::Kernel> kernel_;
    std::optional<StepWatch> watch_; // where arrays are the host's
    bool on_host_ = true;            // Reference or CPU: computeForce() runs inside calcForcesAndEnergy()
    bool want_forces_ = true;
};

} // namespace equistride
