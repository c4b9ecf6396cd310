// torch.classes.equistride.Model: the C++ model interface for Python, so that all ways in check and fail alike.
#include "artifact/archive.h"
#include "artifact/trust.h"
#include "evaluation/batch.h"
#include "evaluation/box.h"
#include "evaluation/evaluation.h"
#include "host_memory.h"
#include "model/script.h"

#include <ATen/ATen.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <mutex>

namespace equistride {
namespace {

using Optional = std::optional<at::Tensor>;

struct TorchModel : torch::CustomClassHolder {
    /// What a file of TorchScript holds of a model: its artifact, its name, and how it computes.
    using State = std::tuple<at::Tensor, std::string, bool, double, double>;

    std::unique_ptr<Model> model;

    /// @param bytes  uint8, the content of the file `name`; none to read it
    TorchModel(const Optional &bytes, const std::string &name, bool verify)
        : content_(bytes ? bytes->contiguous() : at::Tensor()), name_(name) {
        if (!bytes) {
            model = Model::load(name, verify);
            return;
        }
        model = Model::from_content(content(content_), name, verify);
    }

    /// The user's word for a compiled artifact, by its content (uint8).
    static void trust(const at::Tensor &bytes) { trust_compiled(*content(bytes)); }

    /// Raises where a TorchScript file, by its content (uint8), may not run.
    static void look_at(const at::Tensor &bytes, const std::string &name) {
        const std::shared_ptr<const std::string> script = content(bytes);
        inspect_archive(script, name);
        read_script(script, name);
    }

    /// A model that was made of bytes goes into TorchScript's files, and is loaded and tested with them.
    State state() const {
        TORCH_CHECK_VALUE(content_.defined(), "a model that was read from ", name_,
                          " cannot be saved in TorchScript; give its content");
        const Metadata &metadata = model->metadata();
        return {content_, name_, model->dtype() == at::kDouble, metadata.charge, metadata.spin};
    }

    static c10::intrusive_ptr<TorchModel> restored(const State &state) {
        const auto &[content, name, double_precision, charge, spin] = state;
        auto made = c10::make_intrusive<TorchModel>(content.cpu(), name, /*verify=*/true);
        made->to("cpu", double_precision);
        if (made->model->metadata().charge_spin != Metadata::ChargeSpin::none)
            made->set_system(charge, spin);
        return made;
    }

    std::string metadata() const { return model->metadata().text; }

    /// The contract as metadata of format 2 have it, also of a file of format 1.
    std::string contract() const { return describe(model->metadata()); }

    void to(const std::string &device, bool double_precision) {
        const std::lock_guard<std::mutex> alone(stepping_);
        evaluation_.reset();
        model->to(at::Device(device), double_precision ? at::kDouble : at::kFloat);
    }

    /// to() the device of what is to come, in the same precision.
    void follow(const at::Tensor &positions) {
        if (positions.device() != model->device())
            to(positions.device().str(), model->dtype() == at::kDouble);
    }

    void set_system(double charge, double spin) { model->set_system(charge, spin); }
    void set_stride(double stride_fs) { model->set_stride(stride_fs); }

    /// Outputs in the order of Outputs' members that the model's kind has; energies alone without `forces`. On a GPU, a
    /// system that comes again is taken by step(), which has to be set up for each.
    std::vector<at::Tensor> compute(const at::Tensor &positions, const Optional &velocities, const at::Tensor &species,
                                    const at::Tensor &cell, const at::Tensor &pbc, bool forces) {
        const Coordinates now = at(positions, velocities, cell);
        if (model->device().is_cpu())
            return listed(SystemEvaluation(*model, species, pbc).compute(now, forces));
        const std::lock_guard<std::mutex> alone(stepping_);
        if (!again(species, pbc)) {
            remember(species, pbc);
            return listed(SystemEvaluation(*model, species, pbc, SystemEvaluation::Lists::exact).compute(now, forces));
        }
        std::vector<at::Tensor> outputs = listed(take_step(now, forces));
        for (at::Tensor &output : outputs)
            output = output.clone();
        evaluation_->finish();
        return outputs;
    }

    /// The same with tensors of a fixed size, which are kept for the next call: a step as engines take it on a GPU. The
    /// outputs are overwritten by the next call.
    std::vector<at::Tensor> step(const at::Tensor &positions, const Optional &velocities, const at::Tensor &species,
                                 const at::Tensor &cell, const at::Tensor &pbc) {
        const std::lock_guard<std::mutex> alone(stepping_);
        if (!again(species, pbc))
            remember(species, pbc);
        return listed(take_step(at(positions, velocities, cell), true));
    }

    /// Edges for which step() has room; 0 before it was called, or where the model takes no padding.
    std::int64_t capacity() const { return evaluation_ ? evaluation_->capacity() : 0; }

    /// Energies [B], atomic energies [N], forces [N, 3] and virials [B, 3, 3] of frames given part by part.
    std::vector<at::Tensor> compute_batch(const std::vector<at::Tensor> &positions,
                                          const std::vector<at::Tensor> &species, const std::vector<at::Tensor> &cells,
                                          const std::vector<at::Tensor> &pbcs) {
        std::vector<BatchFrame> frames;
        for (std::size_t k = 0; k < positions.size(); k++)
            frames.push_back({at(positions[k], {}, cells.at(k)), species.at(k), pbcs.at(k)});
        const BatchOutputs out = equistride::compute_batch(*model, frames);
        return {out.energies, out.atomic_energies, out.forces, out.virials};
    }

    /// Of the energy of the first `owned` atoms: atomic energies [owned], forces [N, 3] on all atoms, virial [3, 3]; of
    /// a propagator their displacements and velocities [owned, 3], momenta not kept. Float64 on the CPU.
    std::vector<at::Tensor> compute_part(const at::Tensor &positions, const Optional &velocities,
                                         const at::Tensor &species, const at::Tensor &cell, const at::Tensor &pbc,
                                         std::int64_t owned) {
        Frame frame;
        frame.positions = positions.to(at::kCPU, at::kDouble);
        frame.cell = cell.to(at::kCPU, at::kDouble);
        frame.species = species.to(at::kCPU);
        check_box(frame.cell, species.size(0), model->metadata());
        if (velocities)
            frame.velocities = velocities->to(at::kCPU, at::kDouble);
        find_edges(frame, pbc.to(at::kCPU), model->metadata().cutoff);
        TORCH_CHECK_VALUE(model->metadata().contract.global_sums == 0 || owned == species.size(0),
                          "the model sums over all atoms, so that no part of a frame is enough; expected all ",
                          species.size(0), " atoms as owned; found ", owned, "; compute the whole frame");
        const PartOutputs out = model->compute_part(frame, owned, nullptr);
        if (!model->metadata().is_potential())
            return {out.displacements, out.velocities};
        return {out.atomic_energies, forces_from_edges(out.gradient, frame.edge_index, frame.shifts, species.size(0)),
                virial_from_edges(out.vectors, out.gradient)};
    }

    at::Tensor uncertainty(const at::Tensor &positions, const at::Tensor &species, const at::Tensor &cell,
                           const at::Tensor &pbc) {
        Frame frame = Placement(*model, pbc).place(at(positions, {}, cell), species.to(model->device()));
        find_edges(frame, pbc.to(model->device()), model->metadata().cutoff);
        return model->uncertainty(frame);
    }

private:
    static std::shared_ptr<const std::string> content(const at::Tensor &bytes) {
        const at::Tensor flat = bytes.contiguous();
        return std::make_shared<const std::string>(static_cast<const char *>(flat.const_data_ptr()), flat.nbytes());
    }

    static Coordinates at(const at::Tensor &positions, const Optional &velocities, const at::Tensor &cell) {
        return {positions, velocities.value_or(at::Tensor()), cell.to(at::kCPU, at::kDouble), nullptr};
    }

    Outputs take_step(const Coordinates &now, bool forces) {
        if (!evaluation_)
            evaluation_ = std::make_unique<SystemEvaluation>(*model, species_, pbc_, SystemEvaluation::Lists::padded);
        return evaluation_->compute(now, forces);
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

    static std::vector<at::Tensor> listed(const Outputs &out) {
        std::vector<at::Tensor> found;
        for (const auto &output : out.named())
            found.push_back(output.values);
        return found;
    }

    at::Tensor content_; // of the file, where it was given
    std::string name_;
    std::mutex stepping_;
    std::unique_ptr<SystemEvaluation> evaluation_;
    at::Tensor species_, pbc_;
};

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    m.def("keep_freed_memory", &keep_freed_memory);
    m.class_<TorchModel>("Model")
        .def(torch::init<const Optional &, const std::string &, bool>())
        .def_static("trust", &TorchModel::trust)
        .def_static("look_at", &TorchModel::look_at)
        .def("metadata", &TorchModel::metadata)
        .def("contract", &TorchModel::contract)
        .def("to", &TorchModel::to)
        .def("set_system", &TorchModel::set_system)
        .def("set_stride", &TorchModel::set_stride)
        .def("compute", &TorchModel::compute)
        .def("step", &TorchModel::step)
        .def("capacity", &TorchModel::capacity)
        .def("compute_batch", &TorchModel::compute_batch)
        .def("compute_part", &TorchModel::compute_part)
        .def("uncertainty", &TorchModel::uncertainty)
        .def("follow", &TorchModel::follow)
        .def_pickle([](const c10::intrusive_ptr<TorchModel> &self) { return self->state(); },
                    [](const TorchModel::State &state) { return TorchModel::restored(state); });
}

} // namespace equistride
