#include "model/model.h"

#include "artifact/archive.h"
#include "artifact/trust.h"
#include "artifact/utf8.h"
#include "host_memory.h"
#include "model/checks.h"
#include "model/container.h"
#include "model/loops.h"
#include "model/momenta.h"
#include "model/self_test.h"
#include "model/total.h"
#include "threads.h"

#include <ATen/ATen.h>

#include <cmath>

namespace equistride {
namespace {

constexpr double CHARGE_LIMIT = 100; // of nn/system.py; multiplicities end there too

void check_whole(const char *what, double value, double lowest) {
    TORCH_CHECK_VALUE(value == std::round(value) && value >= lowest && value <= CHARGE_LIMIT, "the ", what,
                      " is out of range; expected a whole number from ", lowest, " to ", CHARGE_LIMIT, "; found ",
                      value);
}

at::Tensor head(const at::Tensor &all, std::int64_t rows) { return all.size(0) == rows ? all : all.narrow(0, 0, rows); }

template <class Body> auto in_one_sentence(Body body) {
    try {
        return body();
    } catch (const c10::Error &error) {
        C10_THROW_ERROR(ValueError, valid_utf8(error.what_without_backtrace()));
    }
}

} // namespace

Model::Model(std::unique_ptr<Container> container, Metadata metadata)
    : container_(std::move(container)), metadata_(std::move(metadata)),
      dtype_(metadata_.dtype == "float64" ? at::kDouble : at::kFloat) {
    keep_freed_memory();
}

Model::~Model() = default;

std::unique_ptr<Model> Model::load(const std::string &path, bool verify) {
    return from_content(Content::of_file(path), path, verify);
}

std::unique_ptr<Model> Model::from_content(const Content &content, const std::string &name, bool verify) {
    return in_one_sentence([&] {
        auto model = from_archive(content, inspect_archive(content, name), name, verify);
        content.require_unchanged();
        return model;
    });
}

std::unique_ptr<Model> Model::from_archive(Content content, const ArchiveInfo &info, const std::string &name,
                                           bool verify) {
    const Threads one(0); // evaluations of small frames, and a look at each number
    const LoopDeadline deadline;
    return in_one_sentence([&] {
        const bool compiled = info.container == ArchiveInfo::Container::aoti;
        TORCH_CHECK_VALUE(!info.metadata.empty(), name, " is ",
                          compiled ? "an AOTInductor package" : "a TorchScript file",
                          " without equistride's metadata; export the model with `equistride export`");
        Metadata metadata = read_metadata(info.metadata, name);
        TORCH_CHECK_VALUE(info.digested || !metadata.digest, name,
                          " was changed after it was written: its digest (extra/digest.json) is gone; take it from "
                          "where it was exported, or export the model again");
        if (compiled) {
            content = content.whole(); // what is trusted is what will run
            require_trust(*content.whole(), name);
        }
        auto container = (compiled ? load_aoti : load_torchscript)(content, metadata, name);
        auto model = std::make_unique<Model>(std::move(container), std::move(metadata));
        try { // of format 1, also what the module is comes to light
            if (verify || model->metadata().format_version == 1)
                verify_reference(*model, info.reference, name);
        } catch (const c10::ValueError &) {
            if (verify)
                throw;
        }
        return model;
    });
}

void Model::to(at::Device device, at::ScalarType dtype) {
    if (device == device_ && dtype == dtype_)
        return;
    container_->to(device, dtype);
    device_ = at::empty({0}, at::TensorOptions().device(device)).device(); // of "cuda", which one
    dtype_ = dtype;
    version_++;
}

void Model::set_system(double charge, double spin) {
    TORCH_CHECK_VALUE(metadata_.charge_spin != Metadata::ChargeSpin::none,
                      "the model knows no charge and no spin; choose a model that was trained with them");
    check_whole("charge", charge, -CHARGE_LIMIT);
    check_whole("spin multiplicity", spin, 0);
    TORCH_CHECK_VALUE(metadata_.charge_spin == Metadata::ChargeSpin::input ||
                          (charge == metadata_.charge && spin == metadata_.spin),
                      "charge and spin are fixed in the model; expected ", metadata_.charge, " and ", metadata_.spin,
                      "; found ", charge, " and ", spin, "; export or import it for these");
    if (charge == metadata_.charge && spin == metadata_.spin)
        return;
    metadata_.charge = charge;
    metadata_.spin = spin;
    version_++;
    container_->set_system(charge, spin);
}

void Model::set_stride(double stride_fs) {
    const auto index = metadata_.stride_index(stride_fs);
    TORCH_CHECK_VALUE(index, "the time step is not a stride of the propagator; expected ", metadata_.strides_in_words(),
                      " fs; found ", stride_fs, " fs; choose one that it was trained for");
    const double chosen = metadata_.strides_fs[*index];
    if (chosen == metadata_.stride_fs)
        return;
    container_->set_stride(*index);
    metadata_.stride_fs = chosen;
}

Outputs Model::compute_unchecked(const Frame &frame, std::int64_t real, bool forces) {
    if (!metadata_.contract.decomposable)
        return container_->whole(frame);
    const TotalScope atoms({Communicator::self(), real});
    Outputs outputs;
    const at::Tensor vectors = edge_vectors(frame).to(dtype_);
    if (metadata_.is_potential()) {
        const auto [energies, gradient] = container_->energies(vectors, frame.species, frame.edge_index, real, forces);
        outputs.atomic_energies = head(energies, real);
        if (forces) {
            outputs.forces =
                head(forces_from_edges(gradient, frame.edge_index, frame.shifts, frame.species.size(0)), real);
            outputs.virial = virial_from_edges(vectors, gradient);
        }
    } else {
        const auto [displacements, velocities] =
            container_->stride(vectors, frame.velocities, frame.species, frame.edge_index);
        outputs.displacements = head(displacements, real);
        outputs.velocities = head(velocities, real);
    }
    return outputs;
}

Outputs Model::compute_anywhere(const Frame &frame, bool forces) {
    check_inputs(frame, *this);
    Outputs outputs = compute_unchecked(frame, frame.species.size(0), forces);
    check_outputs(outputs, frame);
    if (!metadata_.is_potential() && metadata_.contract.decomposable) {
        const at::Tensor masses =
            at::tensor(metadata_.masses, frame.positions.options()).index_select(0, frame.species).unsqueeze(1);
        const bool open = frame.cell.eq(0).all().item<bool>();
        const Stride kept =
            keep_momenta({frame.positions, frame.velocities}, {outputs.displacements, outputs.velocities}, masses,
                         metadata_.stride_fs, open && metadata_.contract.angular_momentum);
        outputs.displacements = kept.displacements;
        outputs.velocities = kept.velocities;
    }
    return outputs;
}

Outputs Model::compute(const Frame &frame, bool forces) {
    Outputs outputs = compute_anywhere(frame, forces);
    if (!metadata_.is_potential())
        check_stride(outputs.displacements, outputs.velocities, frame, metadata_);
    return outputs;
}

PartOutputs Model::compute_part(const Frame &frame, std::int64_t owned, Exchange *exchange, bool gradient,
                                const Communicator &communicator) {
    TORCH_CHECK_VALUE(metadata_.contract.decomposable,
                      "the model cannot be evaluated in parts, because it does not give energies from edge vectors; "
                      "run it on one process");
    together(communicator, [&] { check_geometry(frame, metadata_); });
    const ExchangeScope scope(exchange);
    const TotalScope atoms({communicator, owned});
    PartOutputs outputs;
    outputs.vectors = edge_vectors(frame);
    const at::Tensor vectors = outputs.vectors.to(device_, dtype_);
    const at::Tensor species = frame.species.to(device_), edges = frame.edge_index.to(device_);
    const auto home = [](const at::Tensor &tensor) {
        return tensor.defined() ? tensor.to(at::kCPU, at::kDouble) : tensor;
    };
    try {
        if (metadata_.is_potential()) {
            const auto found = container_->energies(vectors, species, edges, owned, gradient);
            outputs.atomic_energies = home(head(found.atomic, owned));
            outputs.gradient = home(found.gradient);
        } else {
            const Stride found = container_->stride(vectors, frame.velocities.to(device_), species, edges);
            outputs.displacements = home(head(found.displacements, owned));
            outputs.velocities = home(head(found.velocities, owned));
        }
    } catch (const c10::ValueError &error) { // of one process: the others wait for its features
        TORCH_CHECK(communicator.size() == 1, error.what_without_backtrace());
        throw;
    }
    together(communicator, [&] {
        check_outputs({outputs.atomic_energies, outputs.gradient, {}, outputs.displacements, outputs.velocities},
                      frame);
        if (!metadata_.is_potential())
            check_stride(outputs.displacements, outputs.velocities, frame, metadata_);
    });
    return outputs;
}

std::pair<at::Tensor, at::Tensor> Model::compute_edges(const at::Tensor &vectors, const at::Tensor &species,
                                                       const at::Tensor &edge_index) {
    auto found = container_->energies(vectors, species, edge_index, species.size(0), true);
    return {found.atomic, found.gradient};
}

at::Tensor Model::uncertainty(const Frame &frame) {
    TORCH_CHECK_VALUE(metadata_.contract.uncertainty,
                      "the model cannot say how sure it is; expected an ensemble of models");
    check_composition(frame.species);
    check_inputs(frame, *this);
    Frame rounded = frame; // the module takes positions, in its own precision
    rounded.positions = frame.positions.to(dtype_);
    rounded.cell = frame.cell.to(dtype_);
    const at::Tensor spread = container_->uncertainty(rounded).to(at::kCPU, at::kDouble);
    check_finite(spread, frame, "the uncertainty", "look at the ensemble's members one by one");
    return spread;
}

void Model::check_composition(const at::Tensor &species) const {
    if (!metadata_.composition)
        return;
    const Composition &composition = *metadata_.composition;
    const std::int64_t atoms = species.size(0);
    std::int64_t whole = 0;
    for (const auto &entry : composition.elements)
        whole += entry.second;
    const at::Tensor counts =
        at::bincount(species.to(at::kCPU), {}, static_cast<std::int64_t>(metadata_.species.size()));
    bool same = !composition.atoms || *composition.atoms == atoms;
    std::string found, expected;
    for (std::size_t k = 0; k < metadata_.species.size(); k++) {
        const std::string &element = metadata_.species[k];
        const auto entry = composition.elements.find(element);
        const std::int64_t wanted = entry == composition.elements.end() ? 0 : entry->second;
        const auto here = counts[static_cast<std::int64_t>(k)].item<std::int64_t>();
        same &= here * whole == wanted * atoms;
        if (wanted)
            expected += c10::str(element, wanted);
        if (here)
            found += c10::str(element, here);
    }
    TORCH_CHECK_VALUE(same, "the model holds for one composition alone; expected ", expected,
                      composition.atoms ? c10::str(" with ", *composition.atoms, " atoms in all") : std::string(),
                      "; found ", found, "; import or export it for this composition");
}

} // namespace equistride
