// The convolution on the CPU: walk over the receivers (forward) or the edges (backward), block by block.
#include "instruction_set.h"
#include "tensor_product/plan.h"
#include "tensor_product/sources.h"
#include "threads.h"

#include <ATen/Dispatch.h>

namespace equistride {

template <class Real> const Kernels<Real> &choose_kernels() {
    return for_this_processor(kernels<Real, InstructionSet::portable>, kernels<Real, InstructionSet::avx2>,
                              kernels<Real, InstructionSet::avx512>)();
}
template const Kernels<float> &choose_kernels();
template const Kernels<double> &choose_kernels();

namespace {

constexpr int GRAD_BLOCK = 8;                    // edges whose gradients stay in cache together
constexpr int64_t SLAB_BYTES = int64_t(4) << 20; // gradients of edges that wait for their senders

template <class Real> struct Input {
    const Real *x, *y;
    const Edges &edges;
    const Plan<Real> &plan;
    const Kernels<Real> &kernels;
    const Threads &threads;
};

// The matrices M of up to EDGE_BLOCK edges, and the rows that these edges read.
template <class Real> class Block {
public:
    explicit Block(const Input<Real> &in)
        : in_(in), y_(in.plan.y_width * EDGE_BLOCK), matrix_(in.plan.entries * EDGE_BLOCK) {
        std::fill_n(y_.data(), in.plan.y_width * EDGE_BLOCK, Real(0));
    }

    void read(int64_t begin, int64_t end) {
        const int64_t width = in_.plan.y_width;
        for (int64_t e = begin; e < end; ++e) {
            x[e - begin] = in_.x + in_.edges.sender[e] * in_.plan.x_width;
            for (int64_t h = 0; h < width; ++h)
                y_.data()[h * EDGE_BLOCK + e - begin] = in_.y[e * width + h];
        }
        in_.kernels.couple(in_.plan.terms.data(), int64_t(in_.plan.terms.size()), y_.data(), matrix_.data(),
                           in_.plan.entries);
    }

    const Real *matrix(const Group &group) { return matrix_.data() + group.entry * EDGE_BLOCK; }

    const Real *x[EDGE_BLOCK];

private:
    const Input<Real> &in_;
    Buffer<Real> y_, matrix_;
};

template <class Real, class Weights>
void forward_receivers(const Input<Real> &in, const Weights &source, int64_t begin, int64_t end, Real *out) {
    constexpr bool stored = std::is_same_v<Weights, StoredWeights<Real>>;
    const Plan<Real> &plan = in.plan;
    Block<Real> block(in);
    Buffer<Real> evaluated(stored ? 0 : plan.weights_width * EDGE_BLOCK);
    const Real *weights[EDGE_BLOCK];
    SplineRow<Real> splines[EDGE_BLOCK];
    for (int64_t t = begin; t < end; ++t) {
        Real *row = out + t * plan.out_width;
        std::fill_n(row, plan.out_width, Real(0));
        for (int64_t e = in.edges.first[size_t(t)], stop = in.edges.first[size_t(t) + 1]; e < stop; e += EDGE_BLOCK) {
            const int edges = int(std::min<int64_t>(EDGE_BLOCK, stop - e));
            block.read(e, e + edges);
            for (int k = 0; k < edges; ++k) {
                if constexpr (stored)
                    weights[k] = source.row(e + k);
                else
                    splines[k] = source.at(e + k);
            }
            for (const Group &group : plan.groups)
                for (size_t p = group.first_path; p < group.last_path; ++p) {
                    const Path &path = plan.paths[p];
                    ForwardStep<Real> step{block.x,
                                           weights,
                                           path.x,
                                           path.weights,
                                           path.out_stride,
                                           source.ahead(e + edges),
                                           edges,
                                           int(path.channels),
                                           int(2 * path.l1 + 1),
                                           block.matrix(group),
                                           row + path.out};
                    if constexpr (!stored) {
                        for (int k = 0; k < edges; ++k) {
                            Real *into = evaluated.data() + k * path.channels;
                            in.kernels.spline(splines[k], path.weights, path.channels, into);
                            weights[k] = into;
                        }
                        step.weights_at = 0;
                    }
                    in.kernels.forward[path.l1][path.l2][path.l3](step);
                }
        }
    }
}

template <class Real, class Weights>
void forward_all(const Input<Real> &in, const Weights &source, int64_t receivers, Real *out) {
    in.threads.share(0, receivers, [&](int64_t begin, int64_t end) { forward_receivers(in, source, begin, end, out); });
}

// Null where a gradient is not wanted. The gradient of the weights is that of the lengths where a table gives them.
template <class Real> struct Output {
    Real *x, *y, *weights;
};

// Gradients of a range of edges. `edge_x` [edges, x_width] takes what each edge gives to its sender.
template <class Real, class Weights>
void backward_edges(const Input<Real> &in, const Weights &source, const Real *grad, const Output<Real> &to,
                    int64_t begin, int64_t end, Real *edge_x) {
    constexpr bool stored = std::is_same_v<Weights, StoredWeights<Real>>;
    const Plan<Real> &plan = in.plan;
    const int64_t lanes = in.kernels.lanes, row = stored ? 0 : plan.weights_width;
    Block<Real> block(in);
    Buffer<Real> grad_matrix(plan.entries * lanes * GRAD_BLOCK), on_y(plan.y_width * lanes * GRAD_BLOCK),
        evaluated(row * GRAD_BLOCK), on_evaluated(row * GRAD_BLOCK);
    const Real *weights[GRAD_BLOCK];
    Real *on_x[GRAD_BLOCK], *on_weights[GRAD_BLOCK];
    SplineRow<Real> splines[GRAD_BLOCK];
    for (int64_t e = begin; e < end;) {
        const int64_t t = in.edges.receiver[e], stop = std::min(end, in.edges.first[size_t(t) + 1]);
        const int64_t next = std::min(e + EDGE_BLOCK, stop), origin = e;
        const Real *on_out = grad + t * plan.out_width;
        block.read(e, next);
        for (; e < next; e += GRAD_BLOCK) {
            const int edges = int(std::min<int64_t>(GRAD_BLOCK, next - e));
            for (int k = 0; k < edges; ++k) {
                if (to.x != nullptr)
                    on_x[k] = edge_x + (e + k - begin) * plan.x_width;
                if constexpr (stored) {
                    weights[k] = source.row(e + k);
                    on_weights[k] = to.weights + (to.weights == nullptr ? 0 : (e + k) * plan.weights_width);
                } else {
                    splines[k] = source.at(e + k);
                    in.kernels.spline(splines[k], 0, row, evaluated.data() + k * row);
                    weights[k] = evaluated.data() + k * row;
                    on_weights[k] = on_evaluated.data() + k * row;
                }
            }
            if (to.x != nullptr)
                std::fill_n(on_x[0], edges * plan.x_width, Real(0));
            if (to.y != nullptr)
                std::fill_n(on_y.data(), edges * plan.y_width * lanes, Real(0));
            for (const Group &group : plan.groups) {
                const int64_t stride = group.entries * lanes;
                if (to.y != nullptr)
                    std::fill_n(grad_matrix.data(), edges * stride, Real(0));
                for (size_t p = group.first_path; p < group.last_path; ++p) {
                    const Path &path = plan.paths[p];
                    in.kernels.backward[path.l1][path.l2][path.l3](
                        {block.x + (e - origin), weights, path.x, path.weights, path.out_stride, stride,
                         source.ahead(e + edges), edges, int(path.channels), int(2 * path.l1 + 1),
                         block.matrix(group) + (e - origin), on_out + path.out, to.x == nullptr ? nullptr : on_x,
                         to.weights == nullptr ? nullptr : on_weights, to.y == nullptr ? nullptr : grad_matrix.data()});
                }
                if (to.y != nullptr)
                    for (int k = 0; k < edges; ++k)
                        in.kernels.uncouple(plan.by_harmonic.data() + group.first_term,
                                            int64_t(group.last_term - group.first_term),
                                            grad_matrix.data() + k * stride, on_y.data() + k * plan.y_width * lanes);
            }
            for (int k = 0; k < edges; ++k) {
                if (to.y != nullptr)
                    in.kernels.add_lanes(on_y.data() + k * plan.y_width * lanes, plan.y_width,
                                         to.y + (e + k) * plan.y_width);
                if constexpr (!stored)
                    if (to.weights != nullptr)
                        to.weights[e + k] = in.kernels.spline_slope(splines[k], row, on_weights[k]);
            }
        }
        e = next;
    }
}

// Slab by slab: first what each edge gives, then each sender takes its terms, in the order of the edges. So no sum
// depends on the number of threads.
template <class Real, class Weights>
void backward_all(const Input<Real> &in, const Weights &source, const Real *grad, const Output<Real> &to,
                  int64_t senders) {
    const int64_t width = in.plan.x_width, threads = in.threads.count();
    const int64_t fitting = SLAB_BYTES / int64_t(sizeof(Real)) / width;
    const int64_t slab = threads == 1 ? EDGE_BLOCK : std::max<int64_t>(EDGE_BLOCK * threads, fitting);
    Buffer<Real> waiting(to.x == nullptr ? 0 : std::min(slab, in.edges.count) * width);
    for (int64_t begin = 0; begin < in.edges.count; begin += slab) {
        const int64_t end = std::min(begin + slab, in.edges.count);
        in.threads.share(begin, end, [&](int64_t from, int64_t until) {
            backward_edges(in, source, grad, to, from, until, waiting.data() + (from - begin) * width);
        });
        if (to.x != nullptr)
            in.threads.share(0, senders, threads, [&](int64_t from, int64_t until) {
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t s = in.edges.sender[e];
                    if (s < from || s >= until)
                        continue;
                    const Real *give = waiting.data() + (e - begin) * width;
                    Real *take = to.x + s * width;
                    for (int64_t k = 0; k < width; ++k)
                        take[k] += give[k];
                }
            });
    }
}

// Calls call(input, source of the weights).
template <class F> void with_input(const Convolution &in, const Paths &paths, int64_t receivers, F &&call) {
    const Tensor x = in.x.contiguous(), y = in.y.contiguous(), weights = in.weights.contiguous(),
                 lengths = in.lengths == nullptr ? Tensor() : in.lengths->contiguous(),
                 index = in.edge_index.contiguous();
    const Edges edges(index, x.size(0), receivers);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "tensor_product", [&] {
        const auto data = [](const Tensor &tensor) { return tensor.const_data_ptr<scalar_t>(); };
        const Plan<scalar_t> plan(paths, in.couplings, x.size(1), y.size(1));
        const Threads threads(double(edges.count) * plan.work());
        const Input<scalar_t> input{data(x), data(y), edges, plan, choose_kernels<scalar_t>(), threads};
        if (in.lengths == nullptr)
            call(input, StoredWeights<scalar_t>{data(weights), plan.weights_width, edges.count});
        else
            call(input, TabulatedWeights<scalar_t>{data(lengths), data(weights), plan.weights_width, weights.size(0),
                                                   in.start, in.step});
    });
}

} // namespace

Tensor convolve_cpu(const Convolution &in, int64_t receivers) {
    const Paths paths = check_convolution(in);
    check_receivers(receivers);
    const Tensor out = at::empty({receivers, paths.out_width}, in.x.options());
    with_input(in, paths, receivers, [&]<class Real>(const Input<Real> &input, const auto &source) {
        forward_all(input, source, receivers, out.mutable_data_ptr<Real>());
    });
    return out;
}

Gradients convolve_backward_cpu(const Tensor &grad, const Convolution &in, Wanted wanted) {
    const Paths paths = check_convolution(in);
    check_grad(grad, in.x, paths);
    const Tensor dense = grad.contiguous(), on_x = memory_like(in.x, wanted[0], /*clear=*/true),
                 on_y = memory_like(in.y, wanted[1]), on_third = memory_like(in.third(), wanted[2]);
    with_input(in, paths, grad.size(0), [&]<class Real>(const Input<Real> &input, const auto &source) {
        const auto pointer = [](const Tensor &tensor, bool want) {
            return want ? tensor.mutable_data_ptr<Real>() : nullptr;
        };
        const Output<Real> to{pointer(on_x, wanted[0]), pointer(on_y, wanted[1]), pointer(on_third, wanted[2])};
        backward_all(input, source, dense.const_data_ptr<Real>(), to, in.x.size(0));
    });
    return {on_x, on_y, on_third};
}

} // namespace equistride
