#include "model/torchscript.h"

#include "artifact/archive.h"
#include "gil.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/runtime/jit_exception.h>
#include <torch/csrc/jit/serialization/import.h>

#include <optional>
#include <utility>

namespace equistride {
namespace {

// What the interpreter says after its traceback: "RuntimeError: <sentence>".
std::string last_sentence(const std::string &text) {
    if (text.find("TorchScript interpreter") == std::string::npos)
        return text;
    const std::size_t at = text.rfind("\nRuntimeError: ");
    std::string sentence = at == std::string::npos ? text : text.substr(at + 15);
    sentence.erase(sentence.find_last_not_of(" \n") + 1);
    return sentence;
}

int count_exchanges(const torch::jit::Block &block) {
    static const auto name = c10::Symbol::fromQualString("equistride::exchange");
    int count = 0;
    for (const torch::jit::Node *node : block.nodes()) {
        count += node->kind() == name;
        for (const torch::jit::Block *inner : node->blocks())
            count += count_exchanges(*inner);
    }
    return count;
}

class TorchScriptModel final : public Model {
public:
    TorchScriptModel(torch::jit::Module module, Metadata metadata)
        : Model(std::move(metadata)), module_(std::move(module)) {
        module_.eval();
        if (supports_domain_decomposition()) { // before the first call, which may rewrite the graph
            const auto graph = module_.get_method(part_method()).graph()->copy();
            torch::jit::Inline(*graph);
            exchanges_ = count_exchanges(*graph->block());
        }
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
        device_ = at::empty({0}, at::TensorOptions().device(device)).device(); // of "cuda", which one
        dtype_ = dtype;
        version_++;
        if (system_)
            apply_system(system_->first, system_->second);
    }

protected:
    Outputs run(const Frame &frame, bool forces) override {
        // The module differentiates inside. The profiling executor would compile anew when the number of edges
        // changes, which it does at every step.
        const GilRelease released;
        const c10::InferenceMode no_inference(false);
        const c10::AutoGradMode gradients(true);
        const torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
        if (!forces && metadata_.kind == "potential" && supports_domain_decomposition())
            return energies(frame);
        if (device_.is_cuda() && metadata_.kind == "potential" && supports_padding())
            return part_of(frame, frame.positions.size(0),
                           true); // forward() adds up forces in the order of chance there
        std::vector<c10::IValue> inputs = {outside_inference(frame.positions)};
        if (metadata_.kind == "propagator")
            inputs.emplace_back(outside_inference(frame.velocities));
        for (const at::Tensor *tensor : {&frame.species, &frame.cell, &frame.edge_index, &frame.shifts})
            inputs.emplace_back(outside_inference(*tensor));
        const c10::IValue result = call("forward", std::move(inputs));
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

    bool supports_domain_decomposition() const override { return module_.find_method(part_method()).has_value(); }

    int exchanges() const override { return exchanges_; }

    bool has_uncertainty() const override { return module_.find_method("uncertainty").has_value(); }

    at::Tensor uncertainty(const Frame &frame) override {
        if (!has_uncertainty())
            return Model::uncertainty(frame);
        const GilRelease released;
        const c10::InferenceMode no_inference(false);
        const c10::AutoGradMode gradients(true);
        const torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
        const auto real = at::TensorOptions().device(device_).dtype(dtype_);
        const c10::IValue result =
            call("uncertainty", {frame.positions.to(real), frame.species.to(device_), frame.cell.to(real),
                                 frame.edge_index.to(device_), frame.shifts.to(device_)});
        return result.toTensor().detach().to(at::kCPU, at::kDouble);
    }

    /// One network, or the members of an ensemble.
    void apply_system(double charge, double spin) override {
        const GilRelease released;
        const c10::InferenceMode no_inference(false);
        const c10::AutoGradMode no_gradients(false);
        system_ = {charge, spin};
        for (const torch::jit::Module &part : module_.modules())
            if (const auto method = part.find_method("set_system"))
                (*method)({charge, spin});
    }

    PartOutputs run_part(const Frame &frame, std::int64_t owned, bool forces) override {
        if (!supports_domain_decomposition())
            return Model::run_part(frame, owned, forces);
        const GilRelease released;
        const c10::InferenceMode no_inference(false);
        const bool potential = metadata_.kind == "potential";
        const c10::AutoGradMode gradients(potential && forces);
        const torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
        PartOutputs outputs;
        outputs.vectors = edge_vectors(frame);
        const at::Tensor vectors =
            outputs.vectors.to(device_, dtype_).detach().clone().requires_grad_(potential && forces);
        const at::Tensor species = frame.species.to(device_), edges = frame.edge_index.to(device_);
        const auto own = [&](const at::Tensor &all) { return all.narrow(0, 0, owned); };
        if (potential && !forces) {
            outputs.atomic_energies =
                own(call(part_method(), {vectors, species, edges}).toTensor()).to(at::kCPU, at::kDouble);
        } else if (potential) {
            const auto [energies, gradient] = differentiate(vectors, species, edges, owned);
            outputs.atomic_energies = energies.to(at::kCPU, at::kDouble);
            outputs.gradient = gradient.to(at::kCPU, at::kDouble);
        } else {
            const at::Tensor velocities = frame.velocities.to(device_);
            const c10::IValue result = call(part_method(), {velocities, species, vectors, edges});
            const auto &items = result.toTupleRef().elements();
            outputs.displacements = own(items[0].toTensor()).to(at::kCPU, at::kDouble);
            outputs.velocities = own(items[1].toTensor()).to(at::kCPU, at::kDouble);
        }
        return outputs;
    }

    /// Not a model whose forces are no gradient, nor one that must wait for a GPU: a cap on neighbours counts them, and
    /// older exports of propagators look at lengths and speeds themselves.
    bool supports_padding() const override {
        if (!supports_domain_decomposition() || module_.find_method("energies_and_forces"))
            return false;
        bool watched = false, capped = false;
        for (const torch::jit::Module &part : module_.modules()) {
            watched = watched || part.hasattr("checked");
            capped = capped || (part.hasattr("max_neighbors") && part.attr("max_neighbors").toInt() > 0);
        }
        return metadata_.kind == "potential" ? !capped : watched && module_.find_method("keep").has_value();
    }

    Outputs run_padded(const Frame &frame, std::int64_t real, bool forces) override {
        const GilRelease released;
        const c10::InferenceMode no_inference(false);
        const torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
        const Unwatched unwatched(module_);
        return part_of(frame, real, forces);
    }

    Limits limits() const override {
        Limits limits;
        for (const torch::jit::Module &part : module_.modules())
            if (part.hasattr("checked")) {
                if (part.hasattr("max_speed"))
                    limits.fastest = part.attr("max_speed").toDouble();
                if (part.hasattr("shortest") && part.attr("tabled").toBool())
                    limits.shortest = part.attr("shortest").toDouble();
            }
        return limits;
    }

    Outputs keep_momenta(const Frame &frame, const Outputs &outputs) override {
        const c10::InferenceMode no_inference(false);
        const c10::AutoGradMode no_gradients(false);
        const torch::jit::GraphOptimizerEnabledGuard no_profiling(false);
        const at::Tensor open = frame.cell.eq(0).all().reshape({1});
        const c10::IValue kept = call("keep", {frame.positions, frame.velocities, frame.species, outputs.displacements,
                                               outputs.velocities, at::zeros_like(frame.species), open});
        const auto &items = kept.toTupleRef().elements();
        Outputs all = outputs;
        all.displacements = items[0].toTensor();
        all.velocities = items[1].toTensor();
        return all;
    }

private:
    /// While it lives, the network does not look at lengths and speeds, for which it would have to wait for a GPU.
    class Unwatched {
    public:
        explicit Unwatched(const torch::jit::Module &module) {
            for (const torch::jit::Module &part : module.modules())
                if (part.hasattr("checked")) {
                    parts_.push_back(part);
                    parts_.back().setattr("checked", false);
                }
        }
        ~Unwatched() {
            for (torch::jit::Module &part : parts_)
                part.setattr("checked", true);
        }
        Unwatched(const Unwatched &) = delete;
        Unwatched &operator=(const Unwatched &) = delete;

    private:
        std::vector<torch::jit::Module> parts_;
    };

    /// Energies of the first `count` atoms, and the gradient of their sum to the edge vectors.
    std::pair<at::Tensor, at::Tensor> differentiate(const at::Tensor &vectors, const at::Tensor &species,
                                                    const at::Tensor &edges, std::int64_t count) {
        const at::Tensor energies = call(part_method(), {vectors, species, edges}).toTensor().narrow(0, 0, count);
        const at::Tensor gradient = torch::autograd::grad({energies.sum()}, {vectors}, {}, std::nullopt,
                                                          /*create_graph=*/false, /*allow_unused=*/true)[0];
        return {energies.detach(), gradient.defined() ? gradient : at::zeros_like(vectors)};
    }

    /// Outputs of the first `real` atoms, which have no edges with the others.
    Outputs part_of(const Frame &frame, std::int64_t real, bool forces) {
        Outputs outputs;
        const auto own = [&](const at::Tensor &all) { return all.detach().narrow(0, 0, real); };
        if (metadata_.kind == "propagator") {
            const c10::AutoGradMode no_gradients(false);
            const c10::IValue result = call(
                part_method(), {frame.velocities, frame.species, edge_vectors(frame).to(dtype_), frame.edge_index});
            outputs.displacements = own(result.toTupleRef().elements()[0].toTensor());
            outputs.velocities = own(result.toTupleRef().elements()[1].toTensor());
            return outputs;
        }
        const c10::AutoGradMode gradients(forces);
        const at::Tensor vectors = edge_vectors(frame).detach().requires_grad_(forces);
        const at::Tensor species = outside_inference(frame.species), edges = outside_inference(frame.edge_index);
        if (!forces) {
            outputs.atomic_energies = own(call(part_method(), {vectors, species, edges}).toTensor());
            return outputs;
        }
        const auto [energies, gradient] = differentiate(vectors, species, edges, real);
        outputs.atomic_energies = energies;
        using Signature =
            std::tuple<at::Tensor, at::Tensor>(const at::Tensor &, const at::Tensor &, const at::Tensor &, c10::SymInt);
        static const auto on_atoms =
            c10::Dispatcher::singleton().findSchemaOrThrow("equistride::edge_vectors_backward", "").typed<Signature>();
        const std::int64_t all = frame.species.size(0);
        outputs.forces = own(std::get<0>(on_atoms.call(gradient, frame.edge_index, frame.shifts, all)).neg());
        outputs.virial = vectors.detach().t().matmul(gradient).neg();
        return outputs;
    }

    const char *part_method() const { return metadata_.kind == "potential" ? "atomic_energies" : "free_stride"; }

    /// A refusal of the model reaches the user as the sentence that it was raised with.
    c10::IValue call(const char *method, std::vector<c10::IValue> inputs) {
        try {
            return module_.get_method(method)(std::move(inputs));
        } catch (const torch::jit::JITException &error) {
            C10_THROW_ERROR(ValueError, error.getOriginalMsg().value_or(last_sentence(error.what())));
        } catch (const c10::Error &) {
            throw;
        } catch (const std::runtime_error &error) {
            TORCH_CHECK(false, last_sentence(error.what()));
        }
    }

    /// A third of the work: no gradient.
    Outputs energies(const Frame &frame) {
        const c10::AutoGradMode no_gradients(false);
        Outputs outputs;
        outputs.atomic_energies =
            call(part_method(), {edge_vectors(frame), frame.species, frame.edge_index}).toTensor();
        return outputs;
    }

    struct Stored {
        at::Tensor used;     ///< the module's own
        at::Tensor original; ///< as it was in the file
    };

    torch::jit::Module module_;
    std::vector<Stored> stored_;
    int exchanges_ = 0;
    std::optional<std::pair<double, double>> system_; ///< charge and spin where they are not the file's
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
