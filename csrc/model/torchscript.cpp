// The TorchScript container.
#include "gil.h"
#include "host_memory.h"
#include "model/container.h"
#include "model/declaration.h"
#include "model/loops.h"
#include "model/script.h"
#include "packing.h"
#include "threads.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/runtime/jit_exception.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <unordered_map>
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

constexpr std::size_t KEPT_BESIDE_LAYOUTS = 64U << 20U; // bytes: weights of larger models are read again when needed

constexpr std::size_t PIECE = 4U << 20U; // bytes that are worth giving back

class TorchScriptContainer final : public Container {
public:
    TorchScriptContainer(const Content &content, Metadata &metadata, const std::string &name)
        : module_(read_script(content, name)) {
        module_.eval();
        Observed seen = observe(module_, metadata.is_potential()); // before the first call, which may rewrite graphs
        hold_against(metadata, seen, name);
        potential_ = metadata.is_potential();
        charged_ = std::move(seen.charged);
        for (torch::jit::Module &part : seen.looks)
            part.setattr("checked", false);
        packs_ = std::move(seen.packs);
        layouts_ = std::move(seen.layouts);
        work_of_an_edge_ = work_of_an_edge(module_.parameters());
        std::size_t bytes = 0;
        for (at::Tensor &used : tensors_of(module_)) {
            bytes += used.nbytes();
            stored_.push_back({used, used.detach()});
            used.requires_grad_(false);
        }
        if (bytes > KEPT_BESIDE_LAYOUTS)
            file_ = {content, name};
        to(at::kCPU, metadata.dtype == "float64" ? at::kDouble : at::kFloat);
    }

    /// Converts from the stored (double) values each time, so that going to float and back loses nothing; integers
    /// stay. What is packed for a kernel is made of the converted ones, and never is in double where floats are used.
    void to(at::Device device, at::ScalarType dtype) override {
        const c10::InferenceMode no_inference(false);
        const LoopBound bound;
        read_again();
        lay_out(device, dtype);
        const auto let_go = [this] {
            if (file_)
                return_freed_memory();
        };
        let_go();
        for (auto &[used, original] : stored_) {
            if (!original.defined())
                continue;
            used.set_data(original.is_floating_point() ? original.to(device, dtype) : original.to(device));
            if (file_ && std::exchange(original, at::Tensor()).nbytes() > PIECE)
                let_go();
        }
        for (const torch::jit::Module &part : packs_)
            part.get_method("pack")({});
        let_go();
        if (system_)
            set_system(system_->first, system_->second);
    }

    /// One network, or the members of an ensemble.
    void set_system(double charge, double spin) override {
        const Scope scope(false, 0);
        system_ = {charge, spin};
        for (const torch::jit::Module &part : charged_)
            part.get_method("set_system")({charge, spin});
    }

    void set_stride(std::size_t index) override {
        const Scope scope(false, 0);
        call("set_stride", {static_cast<std::int64_t>(index)});
    }

    Energies energies(const at::Tensor &vectors, const at::Tensor &species, const at::Tensor &edge_index,
                      std::int64_t count, bool gradient) override {
        const Scope scope(gradient, work(edge_index));
        const at::Tensor leaf = outside_inference(vectors).detach().requires_grad_(gradient);
        const at::Tensor all =
            call("atomic_energies", {leaf, outside_inference(species), outside_inference(edge_index)}).toTensor();
        Energies found{all.detach(), {}};
        if (gradient) {
            const at::Tensor own = count == all.size(0) ? all : all.narrow(0, 0, count);
            found.gradient = torch::autograd::grad({own.sum()}, {leaf}, {}, std::nullopt, /*create_graph=*/false,
                                                   /*allow_unused=*/true)[0];
            if (!found.gradient.defined())
                found.gradient = at::zeros_like(leaf);
        }
        return found;
    }

    Stride stride(const at::Tensor &vectors, const at::Tensor &velocities, const at::Tensor &species,
                  const at::Tensor &edge_index) override {
        const Scope scope(false, work(edge_index));
        const auto found = call("free_stride", {velocities, species, vectors, edge_index}).toTuple();
        return {found->elements()[0].toTensor(), found->elements()[1].toTensor()};
    }

    Outputs whole(const Frame &frame) override {
        const Scope scope(true, work(frame.edge_index)); // the module differentiates inside
        std::vector<c10::IValue> inputs = {outside_inference(frame.positions)};
        if (!potential_)
            inputs.emplace_back(outside_inference(frame.velocities));
        for (const at::Tensor *tensor : {&frame.species, &frame.cell, &frame.edge_index, &frame.shifts})
            inputs.emplace_back(outside_inference(*tensor));
        const c10::IValue result = call("forward", std::move(inputs));
        const std::size_t expected = potential_ ? 3 : 2;
        TORCH_CHECK_VALUE(result.isTuple() && result.toTupleRef().elements().size() == expected,
                          "the model's forward returned the wrong number of outputs; expected ", expected,
                          " tensors; export the model again");
        std::vector<at::Tensor> items;
        for (const c10::IValue &item : result.toTupleRef().elements())
            items.push_back(item.toTensor().detach());
        return potential_ ? Outputs{items[0], items[1], items[2], {}, {}} : Outputs{{}, {}, {}, items[0], items[1]};
    }

    at::Tensor uncertainty(const Frame &frame) override {
        const Scope scope(true, work(frame.edge_index));
        std::vector<c10::IValue> inputs;
        for (const at::Tensor *tensor :
             {&frame.positions, &frame.species, &frame.cell, &frame.edge_index, &frame.shifts})
            inputs.emplace_back(outside_inference(*tensor));
        return call("uncertainty", std::move(inputs)).toTensor().detach();
    }

private:
    /// How a module is run. The profiling executor would compile anew when the number of edges changes, which it does
    /// at every step.
    struct Scope {
        Scope(bool gradients, double work) : mode(gradients), threads(work) {}
        const GilRelease released;
        const c10::InferenceMode no_inference{false};
        const c10::AutoGradMode mode;
        const torch::jit::GraphOptimizerEnabledGuard no_profiling{false};
        const TorchThreads threads;
        const LoopBound bound;
    };

    /// Parameters and buffers, always in the same order.
    static std::vector<at::Tensor> tensors_of(const torch::jit::Module &module) {
        std::vector<at::Tensor> found;
        for (const at::Tensor &parameter : module.parameters())
            found.push_back(parameter);
        for (const at::Tensor &buffer : module.buffers())
            found.push_back(buffer);
        return found;
    }

    /// Weights in the kernels' layout, block by block. On a CPU nothing else reads what they are made of: a large model
    /// lets that go on the way, so that it never is in memory twice.
    void lay_out(at::Device device, at::ScalarType dtype) {
        std::unordered_map<const void *, Stored *> whose;
        for (Stored &each : stored_) {
            each.used.set_data(each.original);
            if (!file_ || !device.is_cpu() || each.original.numel() == 0)
                continue;
            const auto [place, alone] = whose.emplace(each.original.const_data_ptr(), &each);
            if (!alone) // tied weights, of which another may be read
                place->second = nullptr;
        }
        const PackScope scope(device, dtype, [&whose](at::TensorList laid_out) {
            for (const at::Tensor &weights : laid_out) {
                const auto found = weights.numel() > 0 ? whose.find(weights.const_data_ptr()) : whose.end();
                if (found == whose.end() || found->second == nullptr)
                    continue;
                found->second->original = at::Tensor();
                found->second->used.set_data(at::empty({0}, weights.options()));
                whose.erase(found);
            }
            if (!whose.empty())
                return_freed_memory();
        });
        for (const torch::jit::Module &part : layouts_)
            part.get_method("pack")({});
    }

    /// A large model has its weights as they are stored while it converts and packs them, and not beyond.
    void read_again() {
        const auto there = [](const Stored &each) { return each.original.defined(); };
        if (std::all_of(stored_.begin(), stored_.end(), there))
            return;
        const auto &[content, name] = *file_;
        content.require_unchanged();
        const std::vector<at::Tensor> all = tensors_of(read_script(content, name));
        content.require_unchanged();
        for (std::size_t k = 0; k < stored_.size(); k++)
            stored_[k].original = all[k].detach();
    }

    double work(const at::Tensor &edge_index) const {
        return static_cast<double>(edge_index.size(1)) * work_of_an_edge_;
    }

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

    struct Stored {
        at::Tensor used;     ///< the module's own
        at::Tensor original; ///< as it is in the file; none where it is read again when needed
    };

    torch::jit::Module module_;
    bool potential_ = true;
    std::vector<torch::jit::Module> charged_, packs_, layouts_;
    std::vector<Stored> stored_;
    std::optional<std::pair<Content, std::string>> file_; ///< of a large model, with its name
    double work_of_an_edge_ = 0;
    std::optional<std::pair<double, double>> system_; ///< charge and spin where they are not the file's
};

} // namespace

std::unique_ptr<Container> load_torchscript(const Content &content, Metadata &metadata, const std::string &name) {
    check_operators(metadata, name);
    const c10::InferenceMode no_inference(false);
    return std::make_unique<TorchScriptContainer>(content, metadata, name);
}

} // namespace equistride
