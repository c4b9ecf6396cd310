// The operators' names and types, the kernels that need no device, and which file holds each device's kernel.
#include "neighbors/neighbors.h"

namespace equistride {

namespace {

// Sizes may be symbols here.
std::tuple<Tensor, Tensor, Tensor> neighbors_padded_any(const Tensor &positions, const Tensor &cell, const Tensor &pbc,
                                                        double cutoff, int64_t capacity, int64_t extra) {
    check_structure(positions, cell, pbc, cutoff);
    check_padding(capacity, extra);
    const auto options = positions.options().dtype(at::kLong);
    return {at::empty({2, capacity}, options), at::empty({capacity, 3}, options.dtype(at::kInt)),
            at::empty({2}, options)};
}

Tensor edge_vectors_any(const Tensor &positions, const Tensor &cell, const Tensor &edge_index, const Tensor &shifts) {
    check_vectors(positions, cell, edge_index, shifts);
    return at::empty_symint({edge_index.sym_size(1), 3}, positions.options());
}

std::tuple<Tensor, Tensor> edge_vectors_backward_any(const Tensor &grad, const Tensor &edge_index, const Tensor &shifts,
                                                     c10::SymInt num_atoms) {
    check_edge_grad(grad, edge_index, shifts);
    return {at::empty_symint({num_atoms, 3}, grad.options()), at::empty({3, 3}, grad.options())};
}

Tensor edge_virial_any(const Tensor &vectors, const Tensor &gradient) {
    check_virial(vectors, gradient);
    return at::empty({3, 3}, vectors.options());
}

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
    // The number of edges depends on the data: its shape function is in Python, beside its only caller.
    m.set_python_module("equistride.graph");
    m.def("neighbors(Tensor positions, Tensor cell, Tensor pbc, float cutoff) -> (Tensor edge_index, Tensor shifts)",
          tags);
    m.def("neighbors_padded(Tensor positions, Tensor cell, Tensor pbc, float cutoff, int capacity, int extra) "
          "-> (Tensor edge_index, Tensor shifts, Tensor summary)",
          tags);
    m.def("edge_vectors(Tensor positions, Tensor cell, Tensor edge_index, Tensor shifts) -> Tensor", tags);
    m.def("edge_vectors_backward(Tensor grad, Tensor edge_index, Tensor shifts, SymInt num_atoms) "
          "-> (Tensor grad_positions, Tensor grad_cell)",
          tags);
    m.def("edge_virial(Tensor vectors, Tensor gradient) -> Tensor", tags);
}

TORCH_LIBRARY_IMPL(equistride, CPU, m) {
    m.impl("neighbors", neighbors_cpu);
    m.impl("neighbors_padded", neighbors_padded_cpu);
    m.impl("edge_vectors", edge_vectors_cpu);
    m.impl("edge_vectors_backward", edge_vectors_backward_cpu);
    m.impl("edge_virial", edge_virial_cpu);
}

TORCH_LIBRARY_IMPL(equistride, Meta, m) {
    m.impl("neighbors_padded", neighbors_padded_any);
    m.impl("edge_vectors", edge_vectors_any);
    m.impl("edge_vectors_backward", edge_vectors_backward_any);
    m.impl("edge_virial", edge_virial_any);
}

} // namespace equistride
