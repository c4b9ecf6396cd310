// The operators' names and types, their shapes, and which file holds each device's kernel.
#include "edge_block/edge_block.h"

#include <ATen/ops/empty.h>

namespace equistride {

namespace {

Tensor bond_frames_any(const Tensor &vectors, int64_t l_max) {
    check_bonds(vectors, l_max);
    const Shape shape(l_max, 0, 1, 1, true);
    return at::empty_symint({vectors.sym_size(0), shape.frame_size}, vectors.options());
}

std::tuple<Tensor, Tensor> edge_block_any(const Tensor &x, const Tensor &vectors, const Tensor &frames,
                                          const Tensor &envelope, const Tensor &hidden, const Tensor &edge_index,
                                          const Tensor &weights, int64_t l_max, int64_t m_max, int64_t hidden_channels,
                                          bool mirror, int64_t keep) {
    const EdgeBlock in{x,       vectors, frames, envelope,        hidden, edge_index,
                       weights, l_max,   m_max,  hidden_channels, mirror};
    const Shape shape = in.shape();
    check_block(in, shape);
    return {at::empty_symint(x.sym_sizes(), x.options()),
            at::empty_symint({kept_edges(shape, x, edge_index.sym_size(1), keep), shape.state}, x.options())};
}

std::tuple<Tensor, Tensor> edge_block_here(const Tensor &x, const Tensor &vectors, const Tensor &frames,
                                           const Tensor &envelope, const Tensor &hidden, const Tensor &edge_index,
                                           const Tensor &weights, int64_t l_max, int64_t m_max, int64_t hidden_channels,
                                           bool mirror, int64_t keep) {
    return edge_block_cpu(
        {x, vectors, frames, envelope, hidden, edge_index, weights, l_max, m_max, hidden_channels, mirror}, keep);
}

EdgeGradients edge_block_backward_any(const Tensor &grad, const Tensor &x, const Tensor &vectors, const Tensor &frames,
                                      const Tensor &envelope, const Tensor &hidden, const Tensor &edge_index,
                                      const Tensor &weights, const Tensor &kept, int64_t l_max, int64_t m_max,
                                      int64_t hidden_channels, bool mirror) {
    const EdgeBlock in{x,       vectors, frames, envelope,        hidden, edge_index,
                       weights, l_max,   m_max,  hidden_channels, mirror};
    const Shape shape = in.shape();
    check_block(in, shape);
    check_block_grad(grad, in, kept, shape);
    const auto like = [](const Tensor &tensor) { return at::empty_symint(tensor.sym_sizes(), tensor.options()); };
    return {like(x), like(vectors), like(envelope), like(hidden)};
}

EdgeGradients edge_block_backward_here(const Tensor &grad, const Tensor &x, const Tensor &vectors, const Tensor &frames,
                                       const Tensor &envelope, const Tensor &hidden, const Tensor &edge_index,
                                       const Tensor &weights, const Tensor &kept, int64_t l_max, int64_t m_max,
                                       int64_t hidden_channels, bool mirror) {
    return edge_block_backward_cpu(
        grad, {x, vectors, frames, envelope, hidden, edge_index, weights, l_max, m_max, hidden_channels, mirror}, kept);
}

Tensor radial_splines_any(const Tensor &lengths, const Tensor &pair, const Tensor &tables, double start, double step) {
    check_splines({lengths, pair, tables, start, step});
    return at::empty_symint({lengths.sym_size(0), tables.sym_size(3)}, lengths.options());
}

Tensor radial_splines_here(const Tensor &lengths, const Tensor &pair, const Tensor &tables, double start, double step) {
    return radial_splines_cpu({lengths, pair, tables, start, step});
}

Tensor radial_splines_backward_any(const Tensor &grad, const Tensor &lengths, const Tensor &pair, const Tensor &tables,
                                   double start, double step) {
    const RadialSplines in{lengths, pair, tables, start, step};
    check_splines(in);
    check_splines_grad(grad, in);
    return at::empty_symint(lengths.sym_sizes(), lengths.options());
}

Tensor radial_splines_backward_here(const Tensor &grad, const Tensor &lengths, const Tensor &pair, const Tensor &tables,
                                    double start, double step) {
    return radial_splines_backward_cpu(grad, {lengths, pair, tables, start, step});
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
    m.impl("edge_block", edge_block_here);
    m.impl("edge_block_backward", edge_block_backward_here);
    m.impl("radial_splines", radial_splines_here);
    m.impl("radial_splines_backward", radial_splines_backward_here);
}

TORCH_LIBRARY_IMPL(equistride, Meta, m) {
    m.impl("bond_frames", bond_frames_any);
    m.impl("edge_block", edge_block_any);
    m.impl("edge_block_backward", edge_block_backward_any);
    m.impl("radial_splines", radial_splines_any);
    m.impl("radial_splines_backward", radial_splines_backward_any);
}

} // namespace equistride
