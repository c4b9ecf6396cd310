#include "model/model.h"

#include "artifact/archive.h"
#include "artifact/utf8.h"
#include "host_memory.h"
#include "model/aoti.h"
#include "model/checks.h"
#include "model/self_test.h"
#include "model/torchscript.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cmath>

namespace equistride {
namespace {

constexpr char OUT_OF_RANGE[] = "the structure is too far from the model's training data, or the model is broken";

constexpr double CHARGE_LIMIT = 100; // of nn/system.py; multiplicities end there too

void check_whole(const char *what, double value, double lowest) {
    TORCH_CHECK_VALUE(value == std::round(value) && value >= lowest && value <= CHARGE_LIMIT, "the ", what,
                      " is out of range; expected a whole number from ", lowest, " to ", CHARGE_LIMIT, "; found ",
                      value);
}

void check_inputs(const Frame &frame) {
    check_positions(frame);
    if (frame.velocities.defined())
        check_finite(frame.velocities, frame, "the velocity", "use a shorter time step or set the velocities anew");
    check_distances(frame);
}

// The axes of an open system whose atoms are nowhere cannot be found, which torch says in its own words.
template <class Run> Outputs in_own_words(Run run) {
    try {
        return run();
    } catch (const c10::Error &error) {
        TORCH_CHECK_VALUE(error.msg().find("linalg.eigh") == std::string::npos,
                          "the model gave a displacement that is not finite; ", OUT_OF_RANGE);
        throw;
    }
}

std::unique_ptr<Model> read(std::shared_ptr<const std::string> bytes, const std::string &name, bool verify) {
    const ArchiveInfo info = inspect_archive(bytes, name);
    const bool compiled = info.container == Container::aoti;
    TORCH_CHECK_VALUE(!info.metadata.empty(), name, " is ", compiled ? "an AOTInductor package" : "a TorchScript file",
                      " without equistride's metadata; export the model with `equistride export`");
    Metadata metadata = read_metadata(info.metadata, name);
    auto model = (compiled ? load_aoti : load_torchscript)(std::move(bytes), std::move(metadata), name);
    if (verify)
        verify_reference(*model, info.reference, name);
    return model;
}

} // namespace

Model::Model(Metadata metadata) : metadata_(std::move(metadata)) { keep_freed_memory(); }

std::unique_ptr<Model> Model::load(const std::string &path, bool verify) {
    return from_bytes(read_file(path), path, verify);
}

std::unique_ptr<Model> Model::from_bytes(std::shared_ptr<const std::string> bytes, const std::string &name,
                                         bool verify) {
    try {
        return read(std::move(bytes), name, verify);
    } catch (const c10::Error &error) {
        C10_THROW_ERROR(ValueError, valid_utf8(error.what_without_backtrace()));
    }
}

Outputs Model::compute(const Frame &frame, bool forces) {
    Outputs outputs = compute_anywhere(frame, forces);
    if (metadata_.kind == "propagator")
        check_stride(outputs.displacements, outputs.velocities, frame, metadata_);
    return outputs;
}

Outputs Model::compute_anywhere(const Frame &frame, bool forces) {
    check_frame(frame, *this);
    check_inputs(frame);
    Outputs outputs = in_own_words([&] { return run(frame, forces); });
    const char *mend = OUT_OF_RANGE;
    if (metadata_.kind == "potential") {
        check_finite(outputs.atomic_energies, frame, "the energy", mend);
        if (outputs.forces.defined())
            check_finite(outputs.forces, frame, "the force", mend);
    } else {
        check_finite(outputs.displacements, frame, "the displacement", mend);
        check_finite(outputs.velocities, frame, "the new velocity", mend);
    }
    return outputs;
}

PartOutputs Model::compute_part(const Frame &frame, std::int64_t owned, Exchange *exchange, bool forces,
                                const Communicator &communicator) {
    together(communicator, [&] {
        check_inputs(frame);
        if (communicator.size() > 1) // before the network refuses on one process, and the others wait for it
            check_range(edge_vectors(frame), frame, limits().shortest, limits().fastest);
    });
    const ExchangeScope scope(exchange);
    PartOutputs outputs;
    try {
        outputs = run_part(frame, owned, forces);
    } catch (const c10::ValueError &error) {
        TORCH_CHECK(communicator.size() == 1, error.what_without_backtrace());
        throw;
    }
    together(communicator, [&] {
        if (metadata_.kind == "potential") {
            check_finite(outputs.atomic_energies, frame, "the energy", OUT_OF_RANGE);
            if (outputs.gradient.defined())
                check_finite(outputs.gradient, frame, "the force", OUT_OF_RANGE);
        } else {
            check_finite(outputs.displacements, frame, "the displacement", OUT_OF_RANGE);
            check_finite(outputs.velocities, frame, "the new velocity", OUT_OF_RANGE);
            check_stride(outputs.displacements, outputs.velocities, frame, metadata_);
        }
    });
    return outputs;
}

void Model::set_system(double charge, double spin) {
    TORCH_CHECK_VALUE(metadata_.knows_system,
                      "the model knows no charge and no spin; choose a model that was trained with them");
    check_whole("charge", charge, -CHARGE_LIMIT);
    check_whole("spin multiplicity", spin, 0);
    version_++;
    apply_system(charge, spin);
}

void Model::apply_system(double, double) {}

PartOutputs Model::run_part(const Frame &, std::int64_t, bool) {
    TORCH_CHECK_VALUE(false, "the model cannot be evaluated in parts, because it does not give energies from edge "
                             "vectors; run it on one process");
}

Outputs Model::run_padded(const Frame &, std::int64_t, bool) { TORCH_CHECK(false, "the model takes no padding"); }

Outputs Model::keep_momenta(const Frame &, const Outputs &) { TORCH_CHECK(false, "the model keeps no momenta apart"); }

at::Tensor Model::uncertainty(const Frame &) {
    TORCH_CHECK_VALUE(false, "the model cannot say how sure it is; expected an ensemble of models");
}

void find_edges(Frame &frame, const at::Tensor &pbc, double cutoff) {
    using Signature =
        std::tuple<at::Tensor, at::Tensor>(const at::Tensor &, const at::Tensor &, const at::Tensor &, double);
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("equistride::neighbors", "").typed<Signature>();
    check_positions(frame);
    std::tie(frame.edge_index, frame.shifts) = op.call(frame.positions, frame.cell, pbc, cutoff);
}

at::Tensor outside_inference(const at::Tensor &tensor) {
    const c10::InferenceMode no_inference(false);
    return tensor.is_inference() ? tensor.clone() : tensor;
}

at::Tensor edge_vectors(const Frame &frame) {
    using Signature = at::Tensor(const at::Tensor &, const at::Tensor &, const at::Tensor &, const at::Tensor &);
    static const auto op =
        c10::Dispatcher::singleton().findSchemaOrThrow("equistride::edge_vectors", "").typed<Signature>();
    return op.call(frame.positions, frame.cell, frame.edge_index, frame.shifts);
}

} // namespace equistride
