// torch.classes.equistride.Model: the C++ model interface for Python, so that both faces check and fail alike.
#include "evaluation/evaluation.h"

#include <ATen/ATen.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <mutex>

namespace equistride {
namespace {

struct TorchModel : torch::CustomClassHolder {
    std::unique_ptr<Model> model;

    explicit TorchModel(const std::string &path, bool verify) : model(Model::load(path, verify)) {}

    std::string metadata() const { return model->metadata().text; }

    void to(const std::string &device, bool double_precision) {
        const std::lock_guard<std::mutex> alone(stepping_);
        evaluation_.reset();
        model->to(at::Device(device), double_precision ? at::kDouble : at::kFloat);
    }

    /// Outputs in the order of Outputs' members that the model's kind has. On a GPU, a system that comes again is taken
    /// by step(), which has to be set up for each.
    std::vector<at::Tensor> compute(const at::Tensor &positions, const std::optional<at::Tensor> &velocities,
                                    const at::Tensor &species, const at::Tensor &cell, const at::Tensor &pbc) {
        if (model->device().is_cpu())
            return compute_exactly(positions, velocities, species, cell, pbc);
        const std::lock_guard<std::mutex> alone(stepping_);
        if (!again(species, pbc)) {
            remember(species, pbc);
            return compute_exactly(positions, velocities, species, cell, pbc);
        }
        std::vector<at::Tensor> outputs = listed(take_step(positions, velocities, cell));
        for (at::Tensor &output : outputs)
            output = output.clone();
        evaluation_->finish();
        return outputs;
    }

    /// The same with tensors of a fixed size, which are kept for the next call: a step as engines take it on a GPU. The
    /// outputs are overwritten by the next call.
    std::vector<at::Tensor> step(const at::Tensor &positions, const std::optional<at::Tensor> &velocities,
                                 const at::Tensor &species, const at::Tensor &cell, const at::Tensor &pbc) {
        const std::lock_guard<std::mutex> alone(stepping_);
        if (!again(species, pbc))
            remember(species, pbc);
        return listed(take_step(positions, velocities, cell));
    }

    /// Edges for which step() has room; 0 before it was called, or where the model takes no padding.
    std::int64_t capacity() const { return evaluation_ ? evaluation_->capacity() : 0; }

private:
    std::vector<at::Tensor> compute_exactly(const at::Tensor &positions, const std::optional<at::Tensor> &velocities,
                                            const at::Tensor &species, const at::Tensor &cell, const at::Tensor &pbc) {
        const auto options = at::TensorOptions().device(model->device()).dtype(model->input_dtype());
        Frame frame;
        frame.positions = positions.to(options);
        if (velocities)
            frame.velocities = velocities->to(options);
        frame.species = species.to(model->device());
        frame.cell = cell.to(options);
        find_edges(frame, pbc.to(model->device()), model->metadata().cutoff);
        return listed(model->compute(frame));
    }

    Outputs take_step(const at::Tensor &positions, const std::optional<at::Tensor> &velocities,
                      const at::Tensor &cell) {
        if (!evaluation_)
            evaluation_ = std::make_unique<SystemEvaluation>(*model, species_, pbc_, SystemEvaluation::Lists::padded);
        Coordinates now;
        now.positions = positions;
        now.velocities = velocities.value_or(at::Tensor());
        now.cell = cell.to(at::kCPU, at::kDouble);
        return evaluation_->compute(now);
    }

    bool again(const at::Tensor &species, const at::Tensor &pbc) const {
        const auto same = [](const at::Tensor &a, const at::Tensor &b) {
            return a.defined() && a.device() == b.device() && a.scalar_type() == b.scalar_type() && a.equal(b);
        };
        return same(species_, species) && same(pbc_, pbc);
    }

    void remember(const at::Tensor &species, const at::Tensor &pbc) {
        evaluation_.reset();
        species_ = species.clone();
        pbc_ = pbc.clone();
    }

    std::vector<at::Tensor> listed(const Outputs &out) const {
        if (model->metadata().kind == "potential")
            return {out.atomic_energies, out.forces, out.virial};
        return {out.displacements, out.velocities};
    }

    std::mutex stepping_;
    std::unique_ptr<SystemEvaluation> evaluation_;
    at::Tensor species_, pbc_;
};

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    m.class_<TorchModel>("Model")
        .def(torch::init<const std::string &, bool>())
        .def("metadata", &TorchModel::metadata)
        .def("to", &TorchModel::to)
        .def("compute", &TorchModel::compute)
        .def("step", &TorchModel::step)
        .def("capacity", &TorchModel::capacity);
}

} // namespace equistride
