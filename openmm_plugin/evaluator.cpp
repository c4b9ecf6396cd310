#include "evaluator.h"

#include "artifact_evaluator.h"
#include "torchforce_evaluator.h"

#include <ATen/Context.h>

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
