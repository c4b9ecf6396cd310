// torch.classes.equistride.Model: the C++ model interface for Python, so that both faces check and fail alike.
#include "model/model.h"

#include <ATen/ATen.h>
#include <torch/custom_class.h>
#include <torch/library.h>

namespace equistride {
namespace {

struct TorchModel : torch::CustomClassHolder {
    std::unique_ptr<Model> model;

    explicit TorchModel(const std::string &path, bool verify) : model(Model::load(path, verify)) {}

    std::string metadata() const { return model->metadata().text; }

    void to(const std::string &device, bool double_precision) {
        model->to(at::Device(device), double_precision ? at::kDouble : at::kFloat);
    }

    /// Outputs in the order of Outputs' members that the model's kind has.
    std::vector<at::Tensor> compute(const at::Tensor &positions, const std::optional<at::Tensor> &velocities,
                                    const at::Tensor &species, const at::Tensor &cell, const at::Tensor &pbc) {
        const auto options = at::TensorOptions().device(model->device()).dtype(model->input_dtype());
        Frame frame;
        frame.positions = positions.to(options);
        if (velocities)
            frame.velocities = velocities->to(options);
        frame.species = species.to(model->device());
        frame.cell = cell.to(options);
        find_edges(frame, pbc.to(model->device()), model->metadata().cutoff);
        const Outputs out = model->compute(frame);
        if (model->metadata().kind == "potential")
            return {out.atomic_energies, out.forces, out.virial};
        return {out.displacements, out.velocities};
    }
};

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    m.class_<TorchModel>("Model")
        .def(torch::init<const std::string &, bool>())
        .def("metadata", &TorchModel::metadata)
        .def("to", &TorchModel::to)
        .def("compute", &TorchModel::compute);
}

} // namespace equistride
