#include "torchforce_evaluator.h"

#include "model/checks.h"
#include "model/loops.h"
#include "model/script.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <algorithm>

namespace equistride {
namespace {

class TorchForceEvaluator final : public Evaluator {
public:
    TorchForceEvaluator(const EquistrideForce &force, at::Device device, at::ScalarType dtype)
        : module_(read_script(force.getModel(), force.getFile(), Native::model)), device_(device), dtype_(dtype),
          outputs_forces_(force.getOutputsForces()) {
        module_.eval();
        module_.to(device);
        for (at::Tensor parameter : module_.parameters())
            parameter.requires_grad_(false);
        for (int i = 0; i < force.getNumGlobalParameters(); i++)
            differentiate_.push_back(false);
        for (int i = 0; i < force.getNumEnergyParameterDerivatives(); i++) {
            const std::string &name = force.getEnergyParameterDerivativeName(i);
            for (int k = 0; k < force.getNumGlobalParameters(); k++)
                if (force.getGlobalParameterName(k) == name) {
                    differentiate_[static_cast<std::size_t>(k)] = true;
                    order_.push_back(static_cast<std::size_t>(k));
                }
        }
    }

    Result evaluate(const Request &request) override {
        const c10::InferenceMode no_inference(false);
        const c10::AutoGradMode gradients(true);
        const torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
        const LoopBound bound;
        Frame frame;
        frame.labels = request.labels;
        frame.positions = request.positions;
        check_positions(frame);
        const bool backward = request.forces && !outputs_forces_;
        // A copy: the module may write into its input, and the caller's memory is not ours.
        const at::Tensor positions = request.positions.to(device_, dtype_, false, /*copy=*/true).requires_grad_(true);
        std::vector<c10::IValue> inputs = {positions};
        if (request.box.defined())
            inputs.emplace_back(request.box.to(device_, dtype_, false, /*copy=*/true));
        std::vector<at::Tensor> parameters;
        for (std::size_t k = 0; k < request.parameters.size(); k++) {
            parameters.push_back(at::scalar_tensor(request.parameters[k], positions.options().requires_grad(false)));
            parameters.back().requires_grad_(differentiate_[k]);
            inputs.emplace_back(parameters.back());
        }
        at::Tensor energy, forces;
        unpack(module_.forward(std::move(inputs)), energy, forces);
        TORCH_CHECK_VALUE(energy.numel() == 1, "the module's energy is wrong; expected one number; found the shape ",
                          energy.sizes());
        Result result;
        result.energy = energy.detach().reshape({}).to(at::kDouble);
        differentiate(energy, positions, parameters, backward, forces, result);
        if (request.forces) {
            TORCH_CHECK_VALUE(forces.sizes() == positions.sizes(),
                              "the module's forces have the wrong shape; expected ", positions.sizes(), "; found ",
                              forces.sizes());
            check_finite(forces, frame, "the force", "the model gives no number there");
            result.forces = forces.detach().to(request.positions.options());
        }
        TORCH_CHECK_VALUE(std::isfinite(result.energy.item<double>()),
                          "the energy of the module is not finite; atoms may be on top of each other");
        return result;
    }

private:
    void unpack(const c10::IValue &output, at::Tensor &energy, at::Tensor &forces) const {
        if (!outputs_forces_) {
            TORCH_CHECK_VALUE(output.isTensor(), "the module's output is wrong; expected the energy alone; found ",
                              output.tagKind(), "; call setOutputsForces(True) where it returns (energy, forces)");
            energy = output.toTensor();
            return;
        }
        TORCH_CHECK_VALUE(output.isTuple() && output.toTupleRef().elements().size() == 2,
                          "the module's output is wrong; expected (energy, forces); found ", output.tagKind(),
                          "; call setOutputsForces(False) where it returns the energy alone");
        energy = output.toTupleRef().elements()[0].toTensor();
        forces = output.toTupleRef().elements()[1].toTensor();
    }

    void differentiate(const at::Tensor &energy, const at::Tensor &positions, const std::vector<at::Tensor> &parameters,
                       bool backward, at::Tensor &forces, Result &result) const {
        std::vector<at::Tensor> wanted;
        if (backward)
            wanted.push_back(positions);
        for (const std::size_t k : order_)
            wanted.push_back(parameters[k]);
        if (wanted.empty())
            return;
        std::vector<at::Tensor> gradients(wanted.size());
        if (energy.requires_grad())
            gradients = torch::autograd::grad({energy.reshape({})}, wanted, {}, /*retain_graph=*/false,
                                              /*create_graph=*/false, /*allow_unused=*/true);
        if (backward)
            forces = gradients[0].defined() ? -gradients[0] : at::zeros_like(positions);
        for (std::size_t k = 0; k < order_.size(); k++) {
            const at::Tensor &gradient = gradients[k + (backward ? 1 : 0)];
            result.derivatives.push_back(gradient.defined() ? gradient.item<double>() : 0.0);
        }
    }

    torch::jit::Module module_;
    at::Device device_;
    at::ScalarType dtype_;
    bool outputs_forces_;
    std::vector<bool> differentiate_;
    std::vector<std::size_t> order_;
};

} // namespace

void check_torchforce_module(const std::shared_ptr<const std::string> &bytes, const std::string &name) {
    const auto methods = read_script(bytes, name, Native::model).get_methods();
    TORCH_CHECK_VALUE(
        std::any_of(methods.begin(), methods.end(), [](const auto &method) { return method.name() == "forward"; }),
        name, " has no method 'forward'; script a module that has one");
}

std::unique_ptr<Evaluator> make_torchforce_evaluator(const EquistrideForce &force, at::Device device,
                                                     at::ScalarType dtype) {
    return std::make_unique<TorchForceEvaluator>(force, device, dtype);
}

} // namespace equistride
