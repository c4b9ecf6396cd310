#include "model/frame.h"

#include "model/checks.h"
#include "operators.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>

#include <tuple>

namespace equistride {

void find_edges(Frame &frame, const at::Tensor &pbc, double cutoff) {
    using Signature =
        std::tuple<at::Tensor, at::Tensor>(const at::Tensor &, const at::Tensor &, const at::Tensor &, double);
    static const auto op = find_operator<Signature>("equistride::neighbors");
    check_positions(frame);
    std::tie(frame.edge_index, frame.shifts) = op.call(frame.positions, frame.cell, pbc, cutoff);
}

at::Tensor edge_vectors(const Frame &frame) {
    using Signature = at::Tensor(const at::Tensor &, const at::Tensor &, const at::Tensor &, const at::Tensor &);
    static const auto op = find_operator<Signature>("equistride::edge_vectors");
    if (frame.vectors.defined())
        return frame.vectors;
    return op.call(frame.positions, frame.cell, frame.edge_index, frame.shifts);
}

at::Tensor forces_from_edges(const at::Tensor &gradient, const at::Tensor &edge_index, const at::Tensor &shifts,
                             std::int64_t atoms) {
    using Signature =
        std::tuple<at::Tensor, at::Tensor>(const at::Tensor &, const at::Tensor &, const at::Tensor &, c10::SymInt);
    static const auto op = find_operator<Signature>("equistride::edge_vectors_backward");
    return std::get<0>(op.call(gradient, edge_index, shifts, atoms)).neg();
}

at::Tensor virial_from_edges(const at::Tensor &vectors, const at::Tensor &gradient) {
    static const auto op = find_operator<decltype(virial_from_edges)>("equistride::edge_virial");
    return op.call(vectors, gradient);
}

std::vector<Outputs::Named> Outputs::named() const {
    std::vector<Named> found = {{"atomic_energies", "the energy", atomic_energies},
                                {"forces", "the force", forces},
                                {"virial", nullptr, virial},
                                {"displacements", "the displacement", displacements},
                                {"velocities", "the new velocity", velocities}};
    std::erase_if(found, [](const Named &output) { return !output.values.defined(); });
    return found;
}

at::Tensor outside_inference(const at::Tensor &tensor) {
    const c10::InferenceMode no_inference(false);
    return tensor.is_inference() ? tensor.clone() : tensor;
}

} // namespace equistride
