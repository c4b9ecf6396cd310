#include "force_impl.h"

#include "errors.h"
#include "gil.h"
#include "kernel.h"
#include "molecules.h"
#include "system_checks.h"

#include <ATen/ATen.h>
#include <openmm/Platform.h>
#include <openmm/System.h>
#include <openmm/reference/ReferencePlatform.h>

#include <algorithm>
#include <numeric>

using OpenMM::ContextImpl;
using OpenMM::OpenMMException;
using OpenMM::Vec3;

namespace equistride {
namespace {

void refuse_bounds(const Bounds &bounds, const std::string &platform) {
    if (bounds.force > 0 || bounds.temperature > 0 || bounds.distance > 0 || !bounds.frame.empty())
        throw OpenMMException(
            "the platform " + platform +
            " looks at no bounds of a force (maxForce, maxTemperature, minDistance, brokenFrame); use "
            "Reference or CPU, or leave them out");
}

} // namespace

template <typename Function> auto EquistrideForceImpl::watched(ContextImpl &context, Function &&function) {
    try {
        return rethrow_as_openmm(std::forward<Function>(function));
    } catch (const OpenMMException &error) {
        if (!watch_)
            throw;
        throw OpenMMException(watch_->undo(context, error.what()));
    }
}

void EquistrideForceImpl::initialize(ContextImpl &context) {
    const int count = context.getSystem().getNumParticles();
    const std::vector<int> &chosen = owner_.getParticles();
    labels_.assign(chosen.begin(), chosen.end());
    if (chosen.empty()) {
        labels_.resize(static_cast<std::size_t>(count));
        std::iota(labels_.begin(), labels_.end(), 0);
    }
    for (const std::int64_t particle : labels_)
        if (particle >= count)
            throw OpenMMException("a particle of the force is not in the System; expected less than " +
                                  std::to_string(count) + "; found " + std::to_string(particle));
    for (const auto &[first, second] : owner_.getBonds())
        if (first >= count || second >= count)
            throw OpenMMException("a bond of the force is not in the System; expected particles less than " +
                                  std::to_string(count) + "; found " + std::to_string(std::max(first, second)));
    if (owner_.isArtifact()) // a module of the TorchForce contract may know of constraints
        check_unconstrained(context.getSystem(), labels_,
                            "and the model was trained on free atoms; make the System with constraints=None, and with "
                            "rigidWater=False where the model sees water; in a mixed System openmm-ml frees the atoms "
                            "inside the region (removeConstraints=True, and a list of atoms), so choose a region that "
                            "cuts no constraint");
    context_ = &context;
    OpenMM::Platform &platform = context.getPlatform();
    const Bounds bounds = rethrow_as_openmm([&] { return Bounds(owner_.getProperties()); });
    if (platform.supportsKernels({CalcEquistrideForceKernel::Name()})) {
        refuse_bounds(bounds, platform.getName());
        kernel_ = platform.createKernel(CalcEquistrideForceKernel::Name(), context);
        const GilRelease released;
        rethrow_as_openmm([&] { kernel_->getAs<CalcEquistrideForceKernel>().initialize(context, owner_, labels_); });
    } else
        initialize_host(context, bounds);
}

void EquistrideForceImpl::initialize_host(ContextImpl &context, const Bounds &bounds) {
    CustomCPPForceImpl::initialize(context);
    const std::string &platform = context.getPlatform().getName();
    on_host_ = platform == "Reference" || platform == "CPU";
    if (on_host_)
        watch_.emplace(bounds, labels_, owner_.getElements(), owner_.usesPeriodicBoundaryConditions());
    else
        refuse_bounds(bounds, platform);
    if (!on_host_ && owner_.getNumEnergyParameterDerivatives() > 0)
        throw OpenMMException("the platform " + platform +
                              " gives no energy derivatives for this force; use Reference, CPU or CUDA");
    const GilRelease released;
    rethrow_as_openmm([&] {
        const at::Device automatic = at::hasCUDA() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
        evaluator_ = make_evaluator(owner_, static_cast<std::int64_t>(labels_.size()),
                                    choose_device(owner_.getProperties().at("device"), automatic), at::kDouble);
    });
}

std::map<std::string, double> EquistrideForceImpl::getDefaultParameters() {
    std::map<std::string, double> parameters;
    for (int i = 0; i < owner_.getNumGlobalParameters(); i++)
        parameters[owner_.getGlobalParameterName(i)] = owner_.getGlobalParameterDefaultValue(i);
    return parameters;
}

double EquistrideForceImpl::calcForcesAndEnergy(ContextImpl &context, bool includeForces, bool includeEnergy,
                                                int groups) {
    if (!kernel_) {
        // Other platforms run computeForce() in a thread that starts before this call.
        want_forces_ = includeForces || !on_host_;
        return CustomCPPForceImpl::calcForcesAndEnergy(context, includeForces, includeEnergy, groups);
    }
    if ((groups & (1 << owner_.getForceGroup())) == 0)
        return 0.0;
    const GilRelease released;
    return rethrow_as_openmm(
        [&] { return kernel_->getAs<CalcEquistrideForceKernel>().execute(context, includeForces, includeEnergy); });
}

double EquistrideForceImpl::computeForce(ContextImpl &context, const std::vector<Vec3> &positions,
                                         std::vector<Vec3> &forces) {
    const GilRelease released;
    return watched(context, [&] { return evaluate(context, positions, forces); });
}

void EquistrideForceImpl::updateContextState(ContextImpl &context, bool &) {
    if (!watch_)
        return;
    const GilRelease released;
    watched(context, [&] { watch_->begin(context); });
}

double EquistrideForceImpl::evaluate(ContextImpl &context, const std::vector<Vec3> &positions,
                                     std::vector<Vec3> &forces) {
    const auto n = static_cast<std::int64_t>(labels_.size());
    Request request = request_of(context, owner_, labels_, want_forces_);
    request.positions = at::empty({n, 3}, at::kDouble);
    auto *x = request.positions.mutable_data_ptr<double>();
    for (const std::int64_t particle : labels_)
        for (int k = 0; k < 3; k++)
            *x++ = positions[static_cast<std::size_t>(particle)][k];
    const Result result = evaluator_->evaluate(request);
    std::fill(forces.begin(), forces.end(), Vec3());
    if (result.forces.defined()) {
        const at::Tensor host = result.forces.to(at::kCPU, at::kDouble).contiguous();
        const auto *f = host.const_data_ptr<double>();
        for (const std::int64_t particle : labels_)
            for (int k = 0; k < 3; k++)
                forces[static_cast<std::size_t>(particle)][k] = *f++;
    }
    add_derivatives(context, result.derivatives);
    const double energy = result.energy.item<double>();
    evaluator_->check();
    if (watch_)
        watch_->look(request.positions, request.box, forces);
    return energy;
}

std::vector<std::pair<int, int>> EquistrideForceImpl::getBondedParticles() const {
    if (owner_.getBonds().empty() || !owner_.usesPeriodicBoundaryConditions() || !context_)
        return owner_.getBonds();
    std::vector<Vec3> positions;
    context_->getPositions(positions);
    Vec3 box[3];
    context_->getPeriodicBoxVectors(box[0], box[1], box[2]);
    return bonds_of_molecules(owner_.getBonds(), positions, box);
}

void EquistrideForceImpl::add_derivatives(ContextImpl &context, const std::vector<double> &derivatives) const {
    if (derivatives.empty())
        return;
    auto *data = static_cast<OpenMM::ReferencePlatform::PlatformData *>(context.getPlatformData());
    for (std::size_t i = 0; i < derivatives.size(); i++)
        (*data->energyParameterDerivatives)[owner_.getEnergyParameterDerivativeName(static_cast<int>(i))] +=
            derivatives[i];
}

} // namespace equistride
