#include "evaluator.h"

#include "artifact_evaluator.h"
#include "torchforce_evaluator.h"

#include <ATen/ATen.h>
#include <openmm/internal/ContextImpl.h>

namespace equistride {

at::Device choose_device(const std::string &name, at::Device automatic) {
    if (name == "auto")
        return automatic;
    TORCH_CHECK_VALUE(name == "cpu" || name == "cuda" || name.starts_with("cuda:"),
                      "the device of a model is auto, cpu or cuda; found '", name, "'");
    const at::Device device(name);
    TORCH_CHECK_VALUE(!device.is_cuda() || at::hasCUDA(), "the device '", name,
                      "' is not there: this torch sees no CUDA GPU; use device='cpu' or install torch with CUDA");
    return device.is_cuda() && !device.has_index() ? at::Device(at::kCUDA, 0) : device;
}

Request request_of(OpenMM::ContextImpl &context, const EquistrideForce &force, const std::vector<std::int64_t> &labels,
                   bool forces) {
    Request request;
    request.forces = forces;
    request.labels = &labels;
    if (force.usesPeriodicBoundaryConditions()) {
        OpenMM::Vec3 box[3];
        context.getPeriodicBoxVectors(box[0], box[1], box[2]);
        request.box = at::empty({3, 3}, at::kDouble);
        auto *h = request.box.mutable_data_ptr<double>();
        for (const OpenMM::Vec3 &vector : box)
            for (int k = 0; k < 3; k++)
                *h++ = vector[k];
    }
    for (int i = 0; i < force.getNumGlobalParameters(); i++)
        request.parameters.push_back(context.getParameter(force.getGlobalParameterName(i)));
    return request;
}

std::unique_ptr<Evaluator> make_evaluator(const EquistrideForce &force, std::int64_t particles, at::Device device,
                                          at::ScalarType precision) {
    const std::string &wanted = force.getProperties().at("precision");
    const bool automatic = wanted == "auto";
    const at::ScalarType fixed = wanted == "single" ? at::kFloat : at::kDouble;
    if (!force.isArtifact())
        return make_torchforce_evaluator(force, device, automatic ? precision : fixed);
    const at::ScalarType trained = force.getMetadata().dtype == "float64" ? at::kDouble : at::kFloat;
    return make_artifact_evaluator(force, particles, device, automatic ? trained : fixed);
}

} // namespace equistride
