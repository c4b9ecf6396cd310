// The edge block on the CPU: walk over the receivers, chunk by chunk of their edges.
#include "edge_block/edge_block.h"
#include "edge_block/matrices.h"
#include "edge_block/rotations.h"
#include "edges.h"
#include "host_memory.h"
#include "instruction_set.h"
#include "threads.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <algorithm>
#include <cmath>

namespace equistride {

template <class Real> const EdgeKernels<Real> &choose_edge_kernels() {
    return for_this_processor(edge_kernels<Real, InstructionSet::portable>, edge_kernels<Real, InstructionSet::avx2>,
                              edge_kernels<Real, InstructionSet::avx512>)();
}
template const EdgeKernels<float> &choose_edge_kernels();
template const EdgeKernels<double> &choose_edge_kernels();

namespace {

constexpr int64_t CHUNK = 48;                    // edges that go through the block together: four tiles of rows
constexpr int64_t LINE = 64;                     // bytes of a cache line
constexpr int64_t SLAB_BYTES = int64_t(8) << 20; // gradients that wait for their senders, with several threads

// The operator's arguments as pointers.
template <class Real> struct Input {
    const Shape &shape;
    const EdgeKernels<Real> &kernels;
    const Matrices<Real> &matrices;
    const Edges &edges;
    const Threads &threads;
    const Real *x, *vectors, *frames, *envelope, *hidden;

    const Real *atom(const Real *features, int64_t i) const { return features + i * shape.size * shape.channels; }
    EdgeIn<Real> edge(int64_t e, const Real *weights) const {
        return {frames + e * shape.frame_size, atom(x, edges.sender[e]), atom(x, edges.receiver[e]), weights};
    }
};

// What a chunk of edges needs between its steps; one for each thread.
template <class Real> class Chunk {
public:
    Chunk(const Input<Real> &in, int64_t num_kept)
        : in_(in), shape_(in.shape), num_kept_(num_kept), atom_(in.shape.size * in.shape.channels),
          weights_(CHUNK * shape_.weights), scaled_(CHUNK * shape_.scaled), sum_(CHUNK * widest_order()),
          state_(CHUNK * shape_.state), rows_(CHUNK * shape_.rows * shape_.hidden),
          on_z_(CHUNK * shape_.rows * shape_.channels), on_inner_(CHUNK * shape_.inner),
          on_weights_(CHUNK * shape_.weights) {}

    Real *scratch_state() { return state_.data(); }

    // The state [edges, state] of some edges: what comes before the gate, and after the second layer.
    void forward(int64_t begin, int64_t count, Real *state) {
        radial(begin, count);
        for (int64_t k = 0; k < count; ++k) {
            if (begin + k + CHUNK < num_kept_)
                fetch<true>(state + (k + CHUNK) * shape_.state, shape_.state);
            if (k + 1 < count)
                fetch<false>(in_.atom(in_.x, in_.edges.sender[begin + k + 1]), atom_);
            in_.kernels.rotate(shape_, in_.edge(begin + k, weights_.data() + k * shape_.weights),
                               scaled_.data() + k * shape_.scaled);
        }
        apply(in_.matrices.first, count, scaled_.data(), shape_.scaled, state, shape_.state);
        const int64_t width = shape_.rows * shape_.hidden;
        for (int64_t k = 0; k < count; ++k)
            in_.kernels.gate(shape_, state + k * shape_.state, rows_.data() + k * width);
        apply(in_.matrices.second, count, rows_.data(), width, state + shape_.inner, shape_.state);
    }

    // Bring numbers near before they are needed: the kept state comes from main memory, which matrix products leave
    // idle.
    template <bool WRITE> static void fetch(const Real *from, int64_t count) {
        for (int64_t k = 0; k < count; k += LINE / int64_t(sizeof(Real)))
            __builtin_prefetch(from + k, WRITE, 2);
    }

    // Add the messages of some edges to their receivers.
    void send(int64_t begin, int64_t count, const Real *state, Real *out) {
        for (int64_t k = 0; k < count; ++k)
            in_.kernels.rotate_back(shape_, in_.frames + (begin + k) * shape_.frame_size, in_.envelope[begin + k],
                                    state + k * shape_.state + shape_.inner,
                                    out + in_.edges.receiver[begin + k] * atom_);
    }

    // Gradients of some edges. `to_receiver` [N, size, channels] is added to, and so is `to_sender` of that shape; or
    // `waiting` [count, size, channels] is written in its place.
    void backward(int64_t begin, int64_t count, const Real *state, const Real *grad, Real *to_sender, Real *waiting,
                  Real *to_receiver, Real *on_vectors, Real *on_envelope, Real *on_hidden) {
        const int64_t width = shape_.rows * shape_.hidden, z_width = shape_.rows * shape_.channels;
        const Generators<Real> &generators = GENERATORS<Real>;
        Real torque[CHUNK][3] = {};
        for (int64_t k = 0, e = begin; k < count; ++k, ++e)
            on_envelope[e] = in_.kernels.unrotate_back(shape_, generators, in_.frames + e * shape_.frame_size,
                                                       in_.envelope[e], in_.atom(grad, in_.edges.receiver[e]),
                                                       state + k * shape_.state + shape_.inner,
                                                       on_z_.data() + k * z_width, torque[k]);
        apply(in_.matrices.second_back, count, on_z_.data(), z_width, rows_.data(), width);
        for (int64_t k = 0; k < count; ++k)
            in_.kernels.ungate(shape_, state + k * shape_.state, rows_.data() + k * width,
                               on_inner_.data() + k * shape_.inner);
        apply(in_.matrices.first_back, count, on_inner_.data(), shape_.inner, scaled_.data(), shape_.scaled);
        radial(begin, count);
        for (int64_t k = 0, e = begin; k < count; ++k, ++e) {
            if (e + CHUNK < num_kept_)
                fetch<false>(state + (k + CHUNK) * shape_.state, shape_.state);
            in_.kernels.unrotate(shape_, generators, in_.edge(e, weights_.data() + k * shape_.weights),
                                 scaled_.data() + k * shape_.scaled,
                                 {waiting ? waiting + k * atom_ : to_sender + in_.edges.sender[e] * atom_,
                                  to_receiver + in_.edges.receiver[e] * atom_, on_weights_.data() + k * shape_.weights,
                                  torque[k], waiting == nullptr});
            turn_bond(in_.vectors + 3 * e, torque[k], on_vectors + 3 * e);
        }
        const int64_t channels = in_.matrices.radial_channels;
        in_.kernels.multiply({on_weights_.data(), shape_.weights, count, in_.matrices.radial_back, shape_.weights,
                              channels, on_hidden + begin * channels, channels});
    }

private:
    const Input<Real> &in_;
    const Shape &shape_;
    const int64_t num_kept_, atom_; // edges whose state is kept; numbers an atom
    Buffer<Real> weights_, scaled_, sum_, state_, rows_, on_z_, on_inner_, on_weights_;

    int64_t widest_order() const {
        return shape_.m_max == 0 ? 0 : shape_.degrees[1] * std::max(2 * shape_.channels, shape_.hidden);
    }

    void radial(int64_t begin, int64_t count) {
        const int64_t channels = in_.matrices.radial_channels;
        in_.kernels.multiply({.a = in_.hidden + begin * channels,
                              .lda = channels,
                              .rows = count,
                              .b = in_.matrices.radial,
                              .k = channels,
                              .n = shape_.weights,
                              .c = weights_.data(),
                              .ldc = shape_.weights,
                              .bias = in_.matrices.radial_bias});
    }

    // y = layer(x), both [count, stride] with rows in m-major order.
    void apply(const Layer<Real> &layer, int64_t count, const Real *x, int64_t x_stride, Real *y, int64_t y_stride) {
        const auto &kernels = in_.kernels;
        const int64_t n = shape_.degrees[0];
        kernels.multiply({.a = x,
                          .lda = x_stride,
                          .rows = count,
                          .b = layer.scalar,
                          .k = layer.gates_in + n * layer.in,
                          .n = layer.gates_out + n * layer.out,
                          .c = y,
                          .ldc = y_stride,
                          .bias = layer.bias});
        for (int m = 1; m <= shape_.m_max; ++m) {
            const int64_t k = shape_.degrees[m] * layer.in, columns = shape_.degrees[m] * layer.out;
            const Real *plus = x + layer.gates_in + shape_.first[m] * layer.in, *minus = plus + k;
            Real *y_plus = y + layer.gates_out + shape_.first[m] * layer.out, *y_minus = y_plus + columns;
            const auto multiply = [&](const Real *from, const Real *matrix, Real *to, bool add) {
                kernels.multiply({from, x_stride, count, matrix, k, columns, to, y_stride, nullptr, add});
            };
            const auto &matrices = layer.orders[m];
            if (shape_.mirror) {
                multiply(plus, matrices[0], y_plus, false);
                multiply(minus, matrices[0], y_minus, false);
                continue;
            }
            // A complex product with three real ones: y+ = W1 (a + b) - (W1 + W2) b, y- = W1 (a + b) + (W2 - W1) a.
            for (int64_t e = 0; e < count; ++e)
                kernels.add(plus + e * x_stride, minus + e * x_stride, k, sum_.data() + e * k);
            kernels.multiply(
                {sum_.data(), k, count, matrices[0], k, columns, y_plus, y_stride, nullptr, false, /*also=*/y_minus});
            multiply(minus, matrices[1], y_plus, true);
            multiply(plus, matrices[2], y_minus, true);
        }
    }
};

template <class F> auto with_input(const EdgeBlock &block, const Shape &shape, F &&call) {
    check_block(block, shape);
    const Tensor x = block.x.contiguous(), vectors = block.vectors.contiguous(), frames = block.frames.contiguous(),
                 envelope = block.envelope.contiguous(), hidden = block.hidden.contiguous(),
                 index = block.edge_index.contiguous(), weights = block.weights.contiguous();
    const Edges edges(index, x.size(0), x.size(0));
    // Each direction multiplies with half of the weights.
    const Threads threads(double(edges.count) * double(weights.numel()));
    return AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "edge_block", [&] {
        const auto data = [](const Tensor &tensor) { return tensor.const_data_ptr<scalar_t>(); };
        const Matrices<scalar_t> matrices(shape, weights, hidden.size(1));
        return call(Input<scalar_t>{shape, choose_edge_kernels<scalar_t>(), matrices, edges, threads, data(x),
                                    data(vectors), data(frames), data(envelope), data(hidden)});
    });
}

// Calls f(begin, count) for chunks of the edges of receivers [from, until); none holds edges before and after `border`.
template <class F> void chunks(const Edges &edges, int64_t from, int64_t until, int64_t border, F &&f) {
    const int64_t end = edges.first[size_t(until)];
    for (int64_t begin = edges.first[size_t(from)]; begin < end;) {
        const int64_t stop = std::min({begin + CHUNK, end, begin < border ? border : end});
        f(begin, stop - begin);
        begin = stop;
    }
}

template <class Real> void forward_all(const Input<Real> &in, Real *out, Real *kept, int64_t num_kept) {
    const int64_t receivers = int64_t(in.edges.first.size()) - 1;
    in.threads.share(0, receivers, [&](int64_t from, int64_t until) {
        Chunk<Real> chunk(in, num_kept);
        chunks(in.edges, from, until, num_kept, [&](int64_t begin, int64_t count) {
            Real *state = begin < num_kept ? kept + begin * in.shape.state : chunk.scratch_state();
            chunk.forward(begin, count, state);
            chunk.send(begin, count, state, out);
        });
    });
}

// Receivers take their terms in the order of the edges, senders theirs into a sum of their own; so no sum depends on
// the number of threads. One thread adds to the senders at once; with more they are served slab by slab, by columns.
template <class Real> struct Backward {
    const Input<Real> &in;
    const Real *grad, *kept;
    int64_t num_kept;
    Real *on_senders, *on_receivers, *on_vectors, *on_envelope, *on_hidden;

    void run() const {
        const int64_t receivers = int64_t(in.edges.first.size()) - 1, width = in.shape.size * in.shape.channels;
        const int threads = in.threads.count();
        if (threads == 1) {
            range(0, receivers, nullptr);
            return;
        }
        const int64_t fitting = SLAB_BYTES / int64_t(sizeof(Real)) / width;
        const int64_t slab = std::max<int64_t>(CHUNK * threads, fitting);
        std::vector<Real> waiting;
        for (int64_t from = 0; from < receivers;) {
            const int64_t begin = in.edges.first[size_t(from)];
            int64_t until = from + 1;
            while (until < receivers && in.edges.first[size_t(until) + 1] - begin <= slab)
                ++until;
            const int64_t end = in.edges.first[size_t(until)];
            waiting.resize(std::max(waiting.size(), size_t((end - begin) * width)));
            in.threads.share(from, until, [&](int64_t a, int64_t b) {
                range(a, b, waiting.data() + (in.edges.first[size_t(a)] - begin) * width);
            });
            in.threads.share(0, width, std::min<int64_t>(threads, width / 16),
                             [&](int64_t a, int64_t b) { serve(begin, end - begin, waiting.data(), a, b); });
            from = until;
        }
    }

private:
    void range(int64_t from, int64_t until, Real *waiting) const {
        const int64_t width = in.shape.size * in.shape.channels;
        Chunk<Real> chunk(in, num_kept);
        chunks(in.edges, from, until, num_kept, [&](int64_t begin, int64_t count) {
            const Real *state = kept + begin * in.shape.state;
            if (begin >= num_kept) {
                chunk.forward(begin, count, chunk.scratch_state());
                state = chunk.scratch_state();
            }
            chunk.backward(begin, count, state, grad, on_senders, waiting, on_receivers, on_vectors, on_envelope,
                           on_hidden);
            if (waiting != nullptr)
                waiting += count * width;
        });
    }

    void serve(int64_t begin, int64_t count, const Real *waiting, int64_t first, int64_t last) const {
        const int64_t width = in.shape.size * in.shape.channels;
        for (int64_t k = 0; k < count; ++k) {
            const Real *give = waiting + k * width;
            Real *take = on_senders + in.edges.sender[begin + k] * width;
            in.kernels.add(take + first, give + first, last - first, take + first);
        }
    }
};

} // namespace

std::tuple<Tensor, Tensor> edge_block_cpu(const EdgeBlock &block, int64_t keep) {
    const Shape shape = block.shape();
    return with_input(block, shape, [&]<class Real>(const Input<Real> &in) {
        const int64_t num_kept = kept_edges(shape, block.x, in.edges.count, allowance(keep)).expect_int();
        const Tensor out = at::zeros(block.x.sizes(), block.x.options()),
                     kept = at::empty({num_kept, shape.state}, block.x.options());
        forward_all(in, out.mutable_data_ptr<Real>(), kept.mutable_data_ptr<Real>(), num_kept);
        return std::make_tuple(out, kept);
    });
}

EdgeGradients edge_block_backward_cpu(const Tensor &grad, const EdgeBlock &block, const Tensor &kept) {
    const Shape shape = block.shape();
    return with_input(block, shape, [&]<class Real>(const Input<Real> &in) {
        check_block_grad(grad, block, kept, shape);
        const Tensor dense = grad.contiguous(), state = kept.contiguous();
        const auto zeros = [&] { return at::zeros(block.x.sizes(), block.x.options()); };
        const auto empty = [&](const Tensor &like) { return at::empty(like.sizes(), like.options()); };
        Tensor on_senders = zeros(), on_receivers = zeros(), on_vectors = empty(block.vectors),
               on_envelope = empty(block.envelope), on_hidden = empty(block.hidden);
        const auto data = [](const Tensor &tensor) { return tensor.mutable_data_ptr<Real>(); };
        Backward<Real>{in,
                       dense.const_data_ptr<Real>(),
                       state.const_data_ptr<Real>(),
                       state.size(0),
                       data(on_senders),
                       data(on_receivers),
                       data(on_vectors),
                       data(on_envelope),
                       data(on_hidden)}
            .run();
        return EdgeGradients(on_senders.add_(on_receivers), on_vectors, on_envelope, on_hidden);
    });
}

} // namespace equistride
