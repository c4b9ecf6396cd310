// The operators' names and types, their shapes, and which file holds each device's kernel.
#include "edge_block/edge_block.h"
#include "host_memory.h"

#include <ATen/ops/empty.h>

namespace equistride {

namespace {

Tensor bond_frames_any(const Tensor &vectors, int64_t l_max) {
    check_bonds(vectors, l_max);
    const Shape shape(l_max, 0, 1, 1, true);
    return at::empty_symint({vectors.sym_size(0), shape.frame_size}, vectors.options());
}

// Sizes may be symbols here.
std::tuple<Tensor, Tensor> edge_block_any(const EdgeBlock &in, int64_t keep) {
    const Shape shape = in.shape();
    check_block(in, shape);
    return {at::empty_symint(in.x.sym_sizes(), in.x.options()),
            at::empty_symint({kept_edges(shape, in.x, in.edge_index.sym_size(1), allowance(keep)), shape.state},
                             in.x.options())};
}

EdgeGradients edge_block_backward_any(const Tensor &grad, const EdgeBlock &in, const Tensor &kept) {
    const Shape shape = in.shape();
    check_block(in, shape);
    check_block_grad(grad, in, kept, shape);
    const auto like = [](const Tensor &tensor) { return at::empty_symint(tensor.sym_sizes(), tensor.options()); };
    return {like(in.x), like(in.vectors), like(in.envelope), like(in.hidden)};
}

Tensor radial_splines_any(const RadialSplines &in) {
    check_splines(in);
    return at::empty_symint({in.lengths.sym_size(0), in.tables.sym_size(3)}, in.lengths.options());
}

Tensor radial_splines_backward_any(const Tensor &grad, const RadialSplines &in) {
    check_splines(in);
    check_splines_grad(grad, in);
    return at::empty_symint(in.lengths.sym_sizes(), in.lengths.options());
}

bool edge_block_on_gpu() {
    static const bool built = c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("equistride::edge_block", "")
                                  .hasKernelForDispatchKey(c10::DispatchKey::CUDA);
    return built;
}

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
    m.def("bond_frames(Tensor vectors, int l_max) -> Tensor", tags);
    m.def("edge_block(Tensor x, Tensor vectors, Tensor frames, Tensor envelope, Tensor hidden, Tensor edge_index, "
          "Tensor weights, int l_max, int m_max, int hidden_channels, bool mirror, int keep) "
          "-> (Tensor out, Tensor kept)",
          tags);
    m.def("edge_block_backward(Tensor grad, Tensor x, Tensor vectors, Tensor frames, Tensor envelope, Tensor hidden, "
          "Tensor edge_index, Tensor weights, Tensor kept, int l_max, int m_max, int hidden_channels, bool mirror) "
          "-> (Tensor grad_x, Tensor grad_vectors, Tensor grad_envelope, Tensor grad_hidden)",
          tags);
    m.def("radial_splines(Tensor lengths, Tensor pair, Tensor tables, float start, float step) -> Tensor", tags);
    m.def("radial_splines_backward(Tensor grad, Tensor lengths, Tensor pair, Tensor tables, float start, float step) "
          "-> Tensor",
          tags);
    // Whether this library was built with the kernels of a GPU.
    m.def("edge_block_on_gpu() -> bool", edge_block_on_gpu);
}

TORCH_LIBRARY_IMPL(equistride, CPU, m) {
    m.impl("bond_frames", bond_frames_cpu);
    implement_edge_block<edge_block_cpu, edge_block_backward_cpu>(m);
    implement_splines<radial_splines_cpu, radial_splines_backward_cpu>(m);
}

TORCH_LIBRARY_IMPL(equistride, Meta, m) {
    m.impl("bond_frames", bond_frames_any);
    implement_edge_block<edge_block_any, edge_block_backward_any>(m);
    implement_splines<radial_splines_any, radial_splines_backward_any>(m);
}

} // namespace equistride
