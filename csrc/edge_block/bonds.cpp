// What bonds alone give: their lengths and envelopes, and what they add to the features that the first block reads.
//
//     bond_lengths   r = |v|, u(r / cutoff) = 1 - x^p ((p + 1)(p + 2) / 2 - p (p + 2) x + p (p + 1) / 2 x^2), 0 beyond
//     edge_degree    out[t] = scalars of t in the first row + sum over edges t <- s of scale u_e D_e^T radial_e
// where radial_e are the rows of order 0 in the bond's frame (arXiv 2302.03655), one for each degree.
#include "checks.h"
#include "edge_block/edge_block.h"
#include "edge_block/rotations.h"
#include "edges.h"
#include "frozen.h"
#include "operators.h"
#include "threads.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <cmath>
#include <torch/csrc/autograd/custom_function.h>

namespace equistride {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t MOST_EXPONENT = 64; // of which each bond takes the power

void check_lengths(const Tensor &vectors, double cutoff, int64_t exponent) {
    check_bonds(vectors, 0);
    TORCH_CHECK_VALUE(cutoff > 0 && std::isfinite(cutoff) && exponent >= 0 && exponent <= MOST_EXPONENT,
                      "bonds need a finite cutoff above 0 and an exponent of the envelope from 0 to ", MOST_EXPONENT,
                      "; found ", cutoff, " and ", exponent);
}

Tensor one_a_row(const Tensor &rows) { return at::empty_symint({rows.sym_size(0)}, rows.options()); }

template <class Real> struct Envelope {
    Real reach, p;
    int64_t exponent; // 0: none

    Real power(Real x, int64_t n) const {
        Real all = 1;
        for (; n > 0; --n)
            all *= x;
        return all;
    }
    Real value(Real r) const {
        const Real x = r / reach;
        if (exponent == 0)
            return 1;
        return x < 1 ? 1 - power(x, exponent) * ((p + 1) * (p + 2) / 2 - x * (p * (p + 2) - x * (p * (p + 1) / 2))) : 0;
    }
    Real slope(Real r) const {
        const Real x = r / reach;
        if (exponent == 0 || !(x < 1))
            return 0;
        return -p * (p + 1) * (p + 2) / 2 * power(x, exponent - 1) * (1 - x) * (1 - x) / reach;
    }
};

// Calls call(e, vector, length, envelope function) for all bonds, which were checked.
template <class F> void over_bonds(const Tensor &vectors, double cutoff, int64_t exponent, F &&call) {
    const Tensor from = vectors.contiguous();
    const Threads threads(double(vectors.size(0)) * 8 * MOVE);
    AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "bond_lengths", [&] {
        const scalar_t *v = from.const_data_ptr<scalar_t>();
        const Envelope<scalar_t> envelope{scalar_t(cutoff), scalar_t(exponent), exponent};
        threads.share(0, vectors.size(0), [&](int64_t begin, int64_t end) {
            for (int64_t e = begin; e < end; ++e) {
                const scalar_t *one = v + 3 * e;
                call(e, one, std::sqrt(one[0] * one[0] + one[1] * one[1] + one[2] * one[2]), envelope);
            }
        });
    });
}

std::tuple<Tensor, Tensor> bond_lengths_cpu(const Tensor &vectors, double cutoff, int64_t exponent) {
    check_lengths(vectors, cutoff, exponent);
    const Tensor lengths = one_a_row(vectors), envelope = one_a_row(vectors);
    over_bonds(vectors, cutoff, exponent, [&]<class Real>(int64_t e, const Real *, Real r, const Envelope<Real> &u) {
        lengths.mutable_data_ptr<Real>()[e] = r;
        envelope.mutable_data_ptr<Real>()[e] = u.value(r);
    });
    return {lengths, envelope};
}

void check_grad(const char *name, const Tensor &grad, const Tensor &rows, const c10::SymInt &count) {
    check_like(name, grad, "vectors", rows);
    TORCH_CHECK_VALUE(grad.dim() == 1 && grad.sym_size(0) == count, name, " must hold one number an edge, [", count,
                      "]; found ", grad.sym_sizes());
}

Tensor bond_lengths_backward_any(const Tensor &on_lengths, const Tensor &on_envelope, const Tensor &vectors,
                                 double cutoff, int64_t exponent) {
    check_lengths(vectors, cutoff, exponent);
    check_grad("grad_lengths", on_lengths, vectors, vectors.sym_size(0));
    check_grad("grad_envelope", on_envelope, vectors, vectors.sym_size(0));
    return memory_like(vectors, true);
}

// A vector without a length has no gradient.
Tensor bond_lengths_backward_cpu(const Tensor &on_lengths, const Tensor &on_envelope, const Tensor &vectors,
                                 double cutoff, int64_t exponent) {
    const Tensor out = bond_lengths_backward_any(on_lengths, on_envelope, vectors, cutoff, exponent),
                 of_length = on_lengths.contiguous(), of_envelope = on_envelope.contiguous();
    over_bonds(vectors, cutoff, exponent, [&]<class Real>(int64_t e, const Real *v, Real r, const Envelope<Real> &u) {
        const Real g = of_length.const_data_ptr<Real>()[e] + of_envelope.const_data_ptr<Real>()[e] * u.slope(r);
        for (int k = 0; k < 3; ++k)
            out.mutable_data_ptr<Real>()[3 * e + k] = r > 0 ? g / r * v[k] : 0;
    });
    return out;
}

std::tuple<Tensor, Tensor> bond_lengths_meta(const Tensor &vectors, double cutoff, int64_t exponent) {
    check_lengths(vectors, cutoff, exponent);
    return {one_a_row(vectors), one_a_row(vectors)};
}

// All tensors but `edge_index` have the type of the scalars.
struct EdgeDegree {
    const Tensor &scalars;    // [N, channels]
    const Tensor &vectors;    // [E, 3]
    const Tensor &frames;     // what bond_frames gives for them
    const Tensor &envelope;   // [E]
    const Tensor &radial;     // [E, (l_max + 1) channels]
    const Tensor &edge_index; // [2, E] receivers, senders; sorted by receiver
    double scale;

    Shape shape() const {
        check_real("scalars", scalars);
        TORCH_CHECK_VALUE(scalars.dim() == 2 && scalars.sym_size(1) > 0,
                          "scalars must have shape [N, channels]; found ", scalars.sym_sizes());
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
                              frames.dim() == 2 && frames.sym_size(0) == edges &&
                              frames.sym_size(1) == made.frame_size && envelope.dim() == 1 &&
                              envelope.sym_size(0) == edges && radial.sym_size(0) == edges,
                          "vectors [E, 3], frames [E, ", made.frame_size, "], envelope [E] and radial [E, ", columns,
                          "] must have one row an edge, ", edges, "; found ", vectors.sym_sizes(), ", ",
                          frames.sym_sizes(), ", ", envelope.sym_sizes(), " and ", radial.sym_sizes());
        return made;
    }
};
using DegreeGradients = std::tuple<Tensor, Tensor, Tensor>; // to vectors, envelope, radial

// Calls call(kernels, edges, threads).
template <class F> void with_degree(const EdgeDegree &in, const Shape &shape, F &&call) {
    const Tensor index = in.edge_index.contiguous();
    const Edges edges(index, in.scalars.size(0), in.scalars.size(0));
    const Threads threads(double(edges.count) * double(shape.frame_size + shape.size) * double(shape.channels));
    AT_DISPATCH_FLOATING_TYPES(in.scalars.scalar_type(), "edge_degree",
                               [&] { call(choose_edge_kernels<scalar_t>(), edges, threads); });
}

Tensor edge_degree_meta(const EdgeDegree &in) {
    const Shape shape = in.shape();
    return at::empty_symint({in.scalars.sym_size(0), shape.size, shape.channels}, in.scalars.options());
}

Tensor edge_degree_cpu(const EdgeDegree &in) {
    const Shape shape = in.shape();
    const Tensor out = at::zeros({in.scalars.size(0), shape.size, shape.channels}, in.scalars.options()),
                 scalars = in.scalars.contiguous(), frames = in.frames.contiguous(),
                 envelope = in.envelope.contiguous(), radial = in.radial.contiguous();
    with_degree(
        in, shape, [&]<class Real>(const EdgeKernels<Real> &kernels, const Edges &edges, const Threads &threads) {
            const Real *const start = scalars.const_data_ptr<Real>(), *const frame = frames.const_data_ptr<Real>(),
                              *const u = envelope.const_data_ptr<Real>(), *const rows = radial.const_data_ptr<Real>();
            Real *const to = out.mutable_data_ptr<Real>();
            const int64_t c = shape.channels, width = shape.size * c;
            threads.share(0, in.scalars.size(0), [&](int64_t from, int64_t until) {
                for (int64_t t = from; t < until; ++t) {
                    for (int64_t e = edges.first[size_t(t)]; e < edges.first[size_t(t) + 1]; ++e)
                        kernels.rotate_back(shape, frame + e * shape.frame_size, Real(in.scale) * u[e],
                                            rows + e * (shape.l_max + 1) * c, to + t * width);
                    kernels.add(to + t * width, start + t * c, c, to + t * width);
                }
            });
        });
    return out;
}

DegreeGradients edge_degree_backward_any(const Tensor &grad, const EdgeDegree &in) {
    const Shape shape = in.shape();
    check_like("grad", grad, "scalars", in.scalars);
    TORCH_CHECK_VALUE(grad.dim() == 3 && grad.sym_size(0) == in.scalars.sym_size(0) && grad.sym_size(1) == shape.size &&
                          grad.sym_size(2) == shape.channels,
                      "grad must have shape [N, ", shape.size, ", ", shape.channels, "]; found ", grad.sym_sizes());
    return {memory_like(in.vectors, true), memory_like(in.envelope, true), memory_like(in.radial, true)};
}

DegreeGradients edge_degree_backward_cpu(const Tensor &grad, const EdgeDegree &in) {
    const auto out = edge_degree_backward_any(grad, in);
    const auto &[on_vectors, on_envelope, on_radial] = out;
    const Shape shape = in.shape();
    const Tensor dense = grad.contiguous(), vectors = in.vectors.contiguous(), frames = in.frames.contiguous(),
                 envelope = in.envelope.contiguous(), radial = in.radial.contiguous();
    with_degree(in, shape,
                [&]<class Real>(const EdgeKernels<Real> &kernels, const Edges &edges, const Threads &threads) {
                    const auto data = [](const Tensor &tensor) { return tensor.const_data_ptr<Real>(); };
                    const Real *const g = data(dense), *const v = data(vectors), *const frame = data(frames),
                                      *const u = data(envelope), *const rows = data(radial);
                    Real *const to_vectors = on_vectors.mutable_data_ptr<Real>(),
                                *const to_envelope = on_envelope.mutable_data_ptr<Real>(),
                                *const to_rows = on_radial.mutable_data_ptr<Real>();
                    const int64_t width = shape.size * shape.channels, columns = (shape.l_max + 1) * shape.channels;
                    const auto scale = Real(in.scale);
                    threads.share(0, edges.count, [&](int64_t begin, int64_t end) {
                        for (int64_t e = begin; e < end; ++e) {
                            Real torque[3] = {};
                            to_envelope[e] =
                                scale * kernels.unrotate_back(shape, GENERATORS<Real>, frame + e * shape.frame_size,
                                                              scale * u[e], g + edges.receiver[e] * width,
                                                              rows + e * columns, to_rows + e * columns, torque);
                            turn_bond(v + 3 * e, torque, to_vectors + 3 * e);
                        }
                    });
                });
    return out;
}

// The arguments one by one.
template <auto FUNCTION>
Tensor degree_with(const Tensor &scalars, const Tensor &vectors, const Tensor &frames, const Tensor &envelope,
                   const Tensor &radial, const Tensor &edge_index, double scale) {
    return FUNCTION({scalars, vectors, frames, envelope, radial, edge_index, scale});
}
template <auto FUNCTION>
DegreeGradients degree_backward_with(const Tensor &grad, const Tensor &scalars, const Tensor &vectors,
                                     const Tensor &frames, const Tensor &envelope, const Tensor &radial,
                                     const Tensor &edge_index, double scale) {
    return FUNCTION(grad, {scalars, vectors, frames, envelope, radial, edge_index, scale});
}

// First gradients; in the functions below, arguments that have one come first and alone, as autograd wants them.

struct Lengths : torch::autograd::Function<Lengths> {
    static variable_list forward(AutogradContext *context, const Tensor &vectors, double cutoff, int64_t exponent) {
        static const auto op = find_operator<decltype(bond_lengths_cpu)>("equistride::bond_lengths");
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({vectors});
        context->saved_data["cutoff"] = cutoff;
        context->saved_data["exponent"] = exponent;
        const auto [lengths, envelope] = op.call(vectors, cutoff, exponent);
        return {lengths, envelope};
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        static const auto op = find_operator<decltype(bond_lengths_backward_cpu)>("equistride::bond_lengths_backward");
        return {op.call(grads[0], grads[1], context->get_saved_variables()[0], context->saved_data["cutoff"].toDouble(),
                        context->saved_data["exponent"].toInt()),
                Tensor(), Tensor()};
    }
};

Tensor call_degree(const EdgeDegree &in) {
    static const auto op = find_operator<decltype(degree_with<call_degree>)>("equistride::edge_degree");
    return op.call(in.scalars, in.vectors, in.frames, in.envelope, in.radial, in.edge_index, in.scale);
}
DegreeGradients call_degree_backward(const Tensor &grad, const EdgeDegree &in) {
    static const auto op =
        find_operator<decltype(degree_backward_with<call_degree_backward>)>("equistride::edge_degree_backward");
    return op.call(grad, in.scalars, in.vectors, in.frames, in.envelope, in.radial, in.edge_index, in.scale);
}

struct Degree : torch::autograd::Function<Degree> {
    static Tensor forward(AutogradContext *context, const Tensor &, const Tensor &, const Tensor &,
                          const EdgeDegree &in) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({in.scalars, in.vectors, in.frames, in.envelope, in.radial, in.edge_index});
        context->saved_data["scale"] = in.scale;
        return call_degree(in);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list in = context->get_saved_variables();
        const auto [vectors, envelope, radial] = call_degree_backward(
            grads[0], {in[0], in[1], in[2], in[3], in[4], in[5], context->saved_data["scale"].toDouble()});
        return {vectors, envelope, radial, Tensor()};
    }
};

std::tuple<Tensor, Tensor> bond_lengths_autograd(const Tensor &vectors, double cutoff, int64_t exponent) {
    const variable_list out = Lengths::apply(vectors, cutoff, exponent);
    return {out[0], out[1]};
}
Tensor bond_lengths_backward_autograd(const Tensor &on_lengths, const Tensor &on_envelope, const Tensor &vectors,
                                      double cutoff, int64_t exponent) {
    static const auto op = find_operator<decltype(bond_lengths_backward_cpu)>("equistride::bond_lengths_backward");
    refuse_second("the fused bonds have", {on_lengths, on_envelope, vectors});
    at::AutoDispatchBelowADInplaceOrView below;
    return op.call(on_lengths, on_envelope, vectors, cutoff, exponent);
}
Tensor edge_degree_autograd(const EdgeDegree &in) {
    check_frozen("scalars and frames of edge_degree", {in.scalars, in.frames});
    return Degree::apply(in.vectors, in.envelope, in.radial, in);
}
DegreeGradients edge_degree_backward_autograd(const Tensor &grad, const EdgeDegree &in) {
    refuse_second("the fused bonds have", {grad, in.scalars, in.vectors, in.frames, in.envelope, in.radial});
    at::AutoDispatchBelowADInplaceOrView below;
    return call_degree_backward(grad, in);
}

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
    m.def("bond_lengths(Tensor vectors, float cutoff, int exponent) -> (Tensor lengths, Tensor envelope)", tags);
    m.def(
        "bond_lengths_backward(Tensor grad_lengths, Tensor grad_envelope, Tensor vectors, float cutoff, int exponent) "
        "-> Tensor",
        tags);
    m.def(
        "edge_degree(Tensor scalars, Tensor vectors, Tensor frames, Tensor envelope, Tensor radial, Tensor edge_index, "
        "float scale) -> Tensor",
        tags);
    m.def("edge_degree_backward(Tensor grad, Tensor scalars, Tensor vectors, Tensor frames, Tensor envelope, Tensor "
          "radial, Tensor edge_index, float scale) -> (Tensor grad_vectors, Tensor grad_envelope, Tensor grad_radial)",
          tags);
}

TORCH_LIBRARY_IMPL(equistride, CPU, m) {
    m.impl("bond_lengths", bond_lengths_cpu);
    m.impl("bond_lengths_backward", bond_lengths_backward_cpu);
    m.impl("edge_degree", degree_with<edge_degree_cpu>);
    m.impl("edge_degree_backward", degree_backward_with<edge_degree_backward_cpu>);
}

TORCH_LIBRARY_IMPL(equistride, Meta, m) {
    m.impl("bond_lengths", bond_lengths_meta);
    m.impl("bond_lengths_backward", bond_lengths_backward_any);
    m.impl("edge_degree", degree_with<edge_degree_meta>);
    m.impl("edge_degree_backward", degree_backward_with<edge_degree_backward_any>);
}

TORCH_LIBRARY_IMPL(equistride, Autograd, m) {
    m.impl("bond_lengths", bond_lengths_autograd);
    m.impl("bond_lengths_backward", bond_lengths_backward_autograd);
    m.impl("edge_degree", degree_with<edge_degree_autograd>);
    m.impl("edge_degree_backward", degree_backward_with<edge_degree_backward_autograd>);
}

} // namespace equistride
