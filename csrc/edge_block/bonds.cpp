// Lengths and first features on the CPU, and their gradients.
#include "edge_block/bonds.h"
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

} // namespace

std::tuple<Tensor, Tensor> bond_lengths_cpu(const Tensor &vectors, double cutoff, int64_t exponent) {
    const auto out = bond_lengths_any(vectors, cutoff, exponent);
    const auto &[lengths, envelope] = out;
    over_bonds(vectors, cutoff, exponent, [&]<class Real>(int64_t e, const Real *, Real r, const Envelope<Real> &u) {
        lengths.mutable_data_ptr<Real>()[e] = r;
        envelope.mutable_data_ptr<Real>()[e] = u.value(r);
    });
    return out;
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

namespace {

// Calls call(kernels, edges, threads).
template <class F> void with_degree(const EdgeDegree &in, const Shape &shape, F &&call) {
    const Tensor index = in.edge_index.contiguous();
    const Edges edges(index, in.scalars.size(0), in.scalars.size(0));
    const Threads threads(double(edges.count) * double(shape.frame_size + shape.size) * double(shape.channels));
    AT_DISPATCH_FLOATING_TYPES(in.scalars.scalar_type(), "edge_degree",
                               [&] { call(choose_edge_kernels<scalar_t>(), edges, threads); });
}

} // namespace

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

namespace {

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
    implement_bonds<bond_lengths_cpu, bond_lengths_backward_cpu, edge_degree_cpu, edge_degree_backward_cpu>(m);
}

TORCH_LIBRARY_IMPL(equistride, Meta, m) {
    implement_bonds<bond_lengths_any, bond_lengths_backward_any, edge_degree_any, edge_degree_backward_any>(m);
}

TORCH_LIBRARY_IMPL(equistride, Autograd, m) {
    implement_bonds<bond_lengths_autograd, bond_lengths_backward_autograd, edge_degree_autograd,
                    edge_degree_backward_autograd>(m);
}

} // namespace equistride
