// The checks of bonds' arguments, and memory for what is made of them.
#include "checks.h"
#include "edge_block/bonds.h"

#include <ATen/ops/empty.h>
#include <cmath>

namespace equistride {

namespace {

constexpr int64_t MOST_EXPONENT = 64; // of which each bond takes the power

void check_lengths(const Tensor &vectors, double cutoff, int64_t exponent) {
    check_bonds(vectors, 0);
    TORCH_CHECK_VALUE(cutoff > 0 && std::isfinite(cutoff) && exponent >= 0 && exponent <= MOST_EXPONENT,
                      "bonds need a finite cutoff above 0 and an exponent of the envelope from 0 to ", MOST_EXPONENT,
                      "; found ", cutoff, " and ", exponent);
}

Tensor one_a_row(const Tensor &rows) { return at::empty_symint({rows.sym_size(0)}, rows.options()); }

void check_grad(const char *name, const Tensor &grad, const Tensor &rows, const c10::SymInt &count) {
    check_like(name, grad, "vectors", rows);
    TORCH_CHECK_VALUE(grad.dim() == 1 && grad.sym_size(0) == count, name, " must hold one number an edge, [", count,
                      "]; found ", grad.sym_sizes());
}

} // namespace

std::tuple<Tensor, Tensor> bond_lengths_any(const Tensor &vectors, double cutoff, int64_t exponent) {
    check_lengths(vectors, cutoff, exponent);
    return {one_a_row(vectors), one_a_row(vectors)};
}

Tensor bond_lengths_backward_any(const Tensor &on_lengths, const Tensor &on_envelope, const Tensor &vectors,
                                 double cutoff, int64_t exponent) {
    check_lengths(vectors, cutoff, exponent);
    check_grad("grad_lengths", on_lengths, vectors, vectors.sym_size(0));
    check_grad("grad_envelope", on_envelope, vectors, vectors.sym_size(0));
    return memory_like(vectors, true);
}

Shape EdgeDegree::shape() const {
    check_real("scalars", scalars);
    TORCH_CHECK_VALUE(scalars.dim() == 2 && scalars.sym_size(1) > 0, "scalars must have shape [N, channels]; found ",
                      scalars.sym_sizes());
    for (const auto &[name, tensor] : {std::pair<const char *, const Tensor &>{"vectors", vectors},
                                       {"frames", frames},
                                       {"envelope", envelope},
                                       {"radial", radial}})
        check_like(name, tensor, "scalars", scalars);
    const int64_t channels = scalars.sym_size(1).guard_int(__FILE__, __LINE__);
    TORCH_CHECK_VALUE(radial.dim() == 2, "radial must have shape [E, (l_max + 1) channels]; found ",
                      radial.sym_sizes());
    const int64_t columns = radial.sym_size(1).guard_int(__FILE__, __LINE__);
    TORCH_CHECK_VALUE(columns > 0 && columns % channels == 0, "radial must have (l_max + 1) ", channels,
                      " columns; found ", radial.sym_sizes());
    const Shape made(columns / channels - 1, 0, channels, 1, true);
    check_edge_index(edge_index, "scalars", scalars);
    const c10::SymInt edges = edge_index.sym_size(1);
    TORCH_CHECK_VALUE(vectors.dim() == 2 && vectors.sym_size(0) == edges && vectors.sym_size(1) == 3 &&
                          frames.dim() == 2 && frames.sym_size(0) == edges && frames.sym_size(1) == made.frame_size &&
                          envelope.dim() == 1 && envelope.sym_size(0) == edges && radial.sym_size(0) == edges,
                      "vectors [E, 3], frames [E, ", made.frame_size, "], envelope [E] and radial [E, ", columns,
                      "] must have one row an edge, ", edges, "; found ", vectors.sym_sizes(), ", ", frames.sym_sizes(),
                      ", ", envelope.sym_sizes(), " and ", radial.sym_sizes());
    return made;
}

Tensor edge_degree_any(const EdgeDegree &in) {
    const Shape shape = in.shape();
    return at::empty_symint({in.scalars.sym_size(0), shape.size, shape.channels}, in.scalars.options());
}

DegreeGradients edge_degree_backward_any(const Tensor &grad, const EdgeDegree &in) {
    const Shape shape = in.shape();
    check_like("grad", grad, "scalars", in.scalars);
    TORCH_CHECK_VALUE(grad.dim() == 3 && grad.sym_size(0) == in.scalars.sym_size(0) && grad.sym_size(1) == shape.size &&
                          grad.sym_size(2) == shape.channels,
                      "grad must have shape [N, ", shape.size, ", ", shape.channels, "]; found ", grad.sym_sizes());
    return {memory_like(in.vectors, true), memory_like(in.envelope, true), memory_like(in.radial, true)};
}

} // namespace equistride
