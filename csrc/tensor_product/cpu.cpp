// The convolution on the CPU: walk over the receivers, block by block.
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

constexpr int64_t PORTION = 4096;                // edges that are taken one block of x after the other
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
    const Real *weights[EDGE_BLOCK];
    SplineRow<Real> splines[EDGE_BLOCK];
    const auto &kernels = stored ? in.kernels.forward : in.kernels.forward_table;
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
                    const ForwardStep<Real> step{block.x,
                                                 weights,
                                                 splines,
                                                 path.x,
                                                 path.weights,
                                                 path.out_stride,
                                                 source.ahead(e + edges),
                                                 edges,
                                                 int(path.channels),
                                                 int(2 * path.l1 + 1),
                                                 false,
                                                 block.matrix(group),
                                                 row + path.out};
                    kernels[path.l1][path.l2][path.l3](step);
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
    Real *x, *y, *weights, *table;
};

// What GRAD_BLOCK edges of one receiver give, one block of x after the other.
template <class Real, class Weights> class BackwardBlock {
public:
    BackwardBlock(const Input<Real> &in, const Weights &source, const Real *grad, const Output<Real> &to)
        : in_(in), source_(source), grad_(grad), to_(to), sums_width_((in.plan.y_width + 1) * in.kernels.lanes),
          turned_(in.plan.turned_width), weights_(stored ? 0 : 3 * widest() * GRAD_BLOCK),
          on_x_(in.plan.x_width * GRAD_BLOCK), sums_(sums_width_ * GRAD_BLOCK),
          totals_((in.plan.y_width + 1) * GRAD_BLOCK), splines_(stored ? 0 : PORTION) {
        std::fill_n(turned_.data(), in.plan.turned_width, Real(0)); // entries without a term stay so
    }

    // At most PORTION edges. `give`(e): where what edge e gives to its sender is added. `teach`(spline, path, gradients
    // of the weights, edge): what it gives to the table.
    template <class F, class G> void portion(int64_t begin, int64_t end, F &&give, G &&teach) {
        if constexpr (!stored)
            for (int64_t e = begin; e < end; ++e) {
                splines_[size_t(e - begin)] = source_.at(e);
                if (to_.weights != nullptr)
                    to_.weights[e] = 0;
            }
        if (to_.y != nullptr)
            std::fill_n(to_.y + begin * in_.plan.y_width, (end - begin) * in_.plan.y_width, Real(0));
        for (const Family &family : in_.plan.families)
            for (int64_t e = begin; e < end;) {
                const int64_t t = in_.edges.receiver[e], stop = std::min(end, in_.edges.first[size_t(t) + 1]);
                turn(family, grad_ + t * in_.plan.out_width);
                for (; e < stop; e += GRAD_BLOCK)
                    block(family, begin, e, int(std::min<int64_t>(GRAD_BLOCK, stop - e)), give, teach);
                e = stop;
            }
    }

private:
    static constexpr bool stored = std::is_same_v<Weights, StoredWeights<Real>>;

    int64_t widest() const {
        int64_t channels = 0;
        for (const Path &path : in_.plan.paths)
            channels = std::max(channels, path.channels);
        return channels;
    }

    void turn(const Family &family, const Real *on_out) {
        for (size_t p = family.first_path; p < family.last_path; ++p) {
            const TurnedPath<Real> &turned = in_.plan.turned_paths[p];
            in_.kernels.turn(turned.terms.data(), int64_t(turned.terms.size()), on_out + turned.path.out,
                             turned.path.out_stride, int(turned.path.channels), turned_.data() + turned.turned);
        }
    }

    template <class F, class G>
    void block(const Family &family, int64_t begin, int64_t e, int edges, const F &give, const G &teach) {
        const Plan<Real> &plan = in_.plan;
        const int64_t lanes = in_.kernels.lanes;
        const Real *x[GRAD_BLOCK], *y[GRAD_BLOCK], *weights[GRAD_BLOCK], *slopes[GRAD_BLOCK];
        Real *on_weights[GRAD_BLOCK];
        for (int k = 0; k < edges; ++k) {
            x[k] = in_.x + in_.edges.sender[e + k] * plan.x_width;
            y[k] = in_.y + (e + k) * plan.y_width;
            if constexpr (stored) {
                weights[k] = source_.row(e + k);
                on_weights[k] = to_.weights + (to_.weights == nullptr ? 0 : (e + k) * plan.weights_width);
            }
        }
        std::fill_n(sums_.data(), edges * sums_width_, Real(0));
        for (size_t p = family.first_path; p < family.last_path; ++p) {
            const TurnedPath<Real> &turned = plan.turned_paths[p];
            const Path &path = turned.path;
            if constexpr (!stored)
                for (int k = 0; k < edges; ++k) {
                    Real *const into = weights_.data() + 3 * k * path.channels;
                    in_.kernels.spline_slope(splines_[size_t(e - begin) + size_t(k)], path.weights, path.channels, into,
                                             into + path.channels);
                    weights[k] = into;
                    slopes[k] = into + path.channels;
                    on_weights[k] = into + 2 * path.channels;
                }
            in_.kernels.backward[path.l1][path.l2][path.l3](
                {x,
                 y,
                 weights,
                 stored ? nullptr : slopes,
                 path.x,
                 path.y,
                 stored ? path.weights : 0,
                 source_.ahead(e + edges),
                 edges,
                 int(path.channels),
                 int(path.l1),
                 int(path.l2),
                 p == family.first_path,
                 turned_.data() + turned.turned,
                 to_.x == nullptr ? nullptr : on_x_.data(),
                 (stored ? to_.weights : to_.table) != nullptr ? on_weights : nullptr,
                 sums_.data(),
                 sums_width_,
                 path.y * lanes,
                 plan.y_width * lanes});
            if constexpr (!stored)
                for (int k = 0; k < edges && to_.table != nullptr; ++k)
                    teach(splines_[size_t(e - begin) + size_t(k)], path, on_weights[k], e + k);
        }
        in_.kernels.add_lanes(sums_.data(), edges * (plan.y_width + 1), totals_.data());
        const Path &first = plan.turned_paths[family.first_path].path;
        const int64_t width = (2 * first.l1 + 1) * first.channels;
        for (int k = 0; k < edges; ++k) {
            const Real *const total = totals_.data() + k * (plan.y_width + 1);
            if (to_.y != nullptr)
                for (int64_t m = 0; m < plan.y_width; ++m)
                    to_.y[(e + k) * plan.y_width + m] += total[m];
            if constexpr (!stored)
                if (to_.weights != nullptr)
                    to_.weights[e + k] += total[plan.y_width];
            if (to_.x != nullptr)
                in_.kernels.add(on_x_.data() + k * width, width, give(e + k) + first.x);
        }
    }

    const Input<Real> &in_;
    const Weights &source_;
    const Real *const grad_;
    const Output<Real> &to_;
    const int64_t sums_width_;
    Buffer<Real> turned_, weights_, on_x_, sums_, totals_;
    std::vector<SplineRow<Real>> splines_;
};

// Where the four rows of a spline are in the table of gradients.
template <class Real>
Real *table_row(const TabulatedWeights<Real> &source, const SplineRow<Real> &at, const Output<Real> &to) {
    return to.table + (at.row - source.table);
}
template <class Real> Real *table_row(const StoredWeights<Real> &, const SplineRow<Real> &, const Output<Real> &) {
    return nullptr;
}

// On one thread each edge gives to its sender at once. On many, slab by slab: first what each edge gives, then each
// sender takes its terms. Both in the order of the edges, so that no sum depends on the number of threads.
template <class Real, class Weights>
void backward_all(const Input<Real> &in, const Weights &source, const Real *grad, const Output<Real> &to,
                  int64_t senders) {
    const int64_t width = in.plan.x_width, threads = in.threads.count();
    if (threads == 1) {
        BackwardBlock<Real, Weights> block(in, source, grad, to);
        for (int64_t e = 0; e < in.edges.count; e += PORTION)
            block.portion(
                e, std::min(e + PORTION, in.edges.count),
                [&](int64_t at) { return to.x + in.edges.sender[at] * width; },
                [&](const SplineRow<Real> &at, const Path &path, const Real *from, int64_t) {
                    in.kernels.add_to_spline(from, at, path.weights, path.channels, table_row(source, at, to));
                });
        return;
    }
    const int64_t fitting = SLAB_BYTES / int64_t(sizeof(Real)) / width;
    const int64_t slab = std::max<int64_t>(EDGE_BLOCK * threads, fitting);
    Buffer<Real> waiting(to.x == nullptr ? 0 : std::min(slab, in.edges.count) * width);
    const int64_t columns = in.plan.weights_width;
    Buffer<Real> lessons(to.table == nullptr ? 0 : std::min(slab, in.edges.count) * columns);
    for (int64_t begin = 0; begin < in.edges.count; begin += slab) {
        const int64_t end = std::min(begin + slab, in.edges.count);
        in.threads.share(begin, end, [&](int64_t from, int64_t until) {
            BackwardBlock<Real, Weights> block(in, source, grad, to);
            if (to.x != nullptr)
                std::fill_n(waiting.data() + (from - begin) * width, (until - from) * width, Real(0));
            for (int64_t e = from; e < until; e += PORTION)
                block.portion(
                    e, std::min(e + PORTION, until), [&](int64_t at) { return waiting.data() + (at - begin) * width; },
                    [&](const SplineRow<Real> &, const Path &path, const Real *from, int64_t at) {
                        std::copy_n(from, path.channels, lessons.data() + (at - begin) * columns + path.weights);
                    });
        });
        if constexpr (std::is_same_v<Weights, TabulatedWeights<Real>>)
            if (to.table != nullptr)
                in.threads.share(0, columns, threads, [&](int64_t from, int64_t until) {
                    for (int64_t e = begin; e < end; ++e) {
                        const SplineRow<Real> at = source.at(e);
                        in.kernels.add_to_spline(lessons.data() + (e - begin) * columns + from, at, from, until - from,
                                                 table_row(source, at, to));
                    }
                });
        if (to.x != nullptr)
            in.threads.share(0, senders, threads, [&](int64_t from, int64_t until) {
                for (int64_t e = begin; e < end; ++e) {
                    const int64_t s = in.edges.sender[e];
                    if (s < from || s >= until)
                        continue;
                    in.kernels.add(waiting.data() + (e - begin) * width, width, to.x + s * width);
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
    const auto [on_x, on_y, on_third, on_table] = learn_cpu(grad, in, {wanted[0], wanted[1], wanted[2], false});
    return {on_x, on_y, on_third};
}

Lessons learn_cpu(const Tensor &grad, const Convolution &in, WantedLessons wanted) {
    const Paths paths = check_convolution(in);
    check_grad(grad, in.x, paths);
    const Tensor dense = grad.contiguous(), on_x = memory_like(in.x, wanted[0], /*clear=*/true),
                 on_y = memory_like(in.y, wanted[1]), on_third = memory_like(in.third(), wanted[2]),
                 on_table = memory_like(in.weights, wanted[3], /*clear=*/true);
    with_input(in, paths, grad.size(0), [&]<class Real>(const Input<Real> &input, const auto &source) {
        const auto pointer = [](const Tensor &tensor, bool want) {
            return want ? tensor.mutable_data_ptr<Real>() : nullptr;
        };
        const Output<Real> to{pointer(on_x, wanted[0]), pointer(on_y, wanted[1]), pointer(on_third, wanted[2]),
                              pointer(on_table, wanted[3])};
        backward_all(input, source, dense.const_data_ptr<Real>(), to, in.x.size(0));
    });
    return {on_x, on_y, on_third, on_table};
}

} // namespace equistride
