#include "model/torchscript.h"

#include "model/archive.h"
#include "model/gil.h"

#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

namespace equistride {
namespace {

// A caller in torch.inference_mode() hands over tensors that autograd refuses.
at::Tensor outside_inference(const at::Tensor &tensor) { return tensor.is_inference() ? tensor.clone() : tensor; }

class TorchScriptModel final : public Model {
public:
    TorchScriptModel(torch::jit::Module module, Metadata metadata)
        : Model(std::move(metadata)), module_(std::move(module)) {
        module_.eval();
        for (at::Tensor parameter : module_.parameters())
            stored_.push_back({parameter, parameter.detach().requires_grad_(false)});
        for (const at::Tensor &buffer : module_.buffers())
            stored_.push_back({buffer, buffer.detach()});
        for (auto &[used, original] : stored_)
            used.requires_grad_(false);
        to(at::kCPU, metadata_.dtype == "float64" ? at::kDouble : at::kFloat);
    }

    /// Converts from the stored (double) values each time, so that going to float and back loses nothing; integers
    /// stay.
    void to(at::Device device, at::ScalarType dtype) override {
        for (auto &[used, original] : stored_)
            used.set_data(original.is_floating_point() ? original.to(device, dtype) : original.to(device));
        device_ = device;
        dtype_ = dtype;
    }

protected:
    Outputs run(const Frame &frame) override {
        // The module differentiates inside. The profiling executor would compile anew when the number of edges
        // changes, which it does at every step.
        const GilRelease released;
        const c10::InferenceMode no_inference(false);
        const c10::AutoGradMode gradients(true);
        const torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
        std::vector<c10::IValue> inputs = {outside_inference(frame.positions)};
        if (metadata_.kind == "propagator")
            inputs.emplace_back(outside_inference(frame.velocities));
        for (const at::Tensor *tensor : {&frame.species, &frame.cell, &frame.edge_index, &frame.shifts})
            inputs.emplace_back(outside_inference(*tensor));
        const c10::IValue result = module_.forward(std::move(inputs));
        const bool potential = metadata_.kind == "potential";
        const std::size_t expected = potential ? 3 : 2;
        TORCH_CHECK_VALUE(result.isTuple() && result.toTupleRef().elements().size() == expected,
                          "the model's forward returned the wrong number of outputs; expected ", expected,
                          " tensors; export the model again");
        const auto &items = result.toTupleRef().elements();
        Outputs outputs;
        if (potential) {
            outputs.atomic_energies = items[0].toTensor().detach();
            outputs.forces = items[1].toTensor().detach();
            outputs.virial = items[2].toTensor().detach();
        } else {
            outputs.displacements = items[0].toTensor().detach();
            outputs.velocities = items[1].toTensor().detach();
        }
        return outputs;
    }

private:
    struct Stored {
        at::Tensor used;     ///< the module's own
        at::Tensor original; ///< as it was in the file
    };

    torch::jit::Module module_;
    std::vector<Stored> stored_;
};

} // namespace

std::unique_ptr<Model> load_torchscript(std::shared_ptr<const std::string> bytes, Metadata metadata,
                                        const std::string &name) {
    const c10::InferenceMode no_inference(false);
    try {
        auto module = torch::jit::load(std::make_shared<MemoryReader>(std::move(bytes)), at::Device(at::kCPU));
        return std::make_unique<TorchScriptModel>(std::move(module), std::move(metadata));
    } catch (const std::exception &error) {
        const auto *torch_error = dynamic_cast<const c10::Error *>(&error);
        C10_THROW_ERROR(ValueError, c10::str(name, " cannot be loaded by this torch (",
                                             torch_error ? torch_error->what_without_backtrace() : error.what(),
                                             "); export the model again with this torch or an older one"));
    }
}

} // namespace equistride
