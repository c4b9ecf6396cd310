// The edge block on the GPU: a block of threads takes a tile of edges, up to 28, through the whole block in shared
// memory, as the CPU takes its chunks; no atomic operation, every sum in one order, no waiting for the host, so that a
// CUDA graph can hold it all. A receiver whose edges lie in one tile is summed there; where several tiles share it each
// writes its part, and a second pass adds them. Backward, senders get their terms slab by slab of edges, through the
// order of the edges by sender.
//
// What bounds it, for the published sizes (l, m <= 2, 64 channels) in float32, an edge: 786 kFLOP of matrix products
// forward and 885 kFLOP backward (664 and 762 with `mirror`). On an H200, whose tensor cores do some 310 TFLOP/s of
// TF32 through mma.sync, they allow 7.6 and 8.6 ns where factors are split, 2.5 and 2.9 with TF32; 67 TFLOP/s of FMA
// would allow 12 and 13. All matrices, 1.6 MB (0.8 as float16, with TF32), are read from L2 once a tile: 56 kB an edge
// each way, 10 ns at 5.5 TB/s, or 5. From memory come 4.6 kB of features (mostly from L2), 0.5 kB of frame and radial
// input, and 5.1 kB of state, kept or read: 2 ns at 4.8 TB/s; backward also 2.3 kB written and read again for the
// senders. So L2 bounds it. These are calculations; nothing here has been timed yet.
//
// Shared memory, published sizes: 8.1 kB an edge in float32, 16 kB in float64; so tiles of 28 edges (12) with the
// 227 KiB of sm_90, 20 with the 163 KiB of sm_80. Registers (nvcc 13.0, sm_90): 255 and less; tensor cores' kernels
// spill at most 0.4 kB and FMA's nothing in float32, none of it in the loops over k; in float64 the loops over degrees
// spill 0.5 kB and the products 0.1 kB.
#include "edge_block/arguments.h"
#include "edge_block/bond_kernels.h"
#include "edge_block/edge_block.h"
#include "edge_block/finish_kernels.h"
#include "edge_block/matrices.h"
#include "edge_block/problem.h"
#include "host_memory.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

namespace equistride {

namespace {

template <class Real> Products<Real> products_of(const Shape &shape, const Layer<Real> &layer) {
    Products<Real> made;
    for (int m = 0; m <= shape.m_max; ++m) {
        const int rows = shape.degrees[m], first = shape.first[m];
        Product<Real> &product = made.of[made.count++];
        if (m == 0) {
            product = {{layer.scalar},
                       layer.bias,
                       int(layer.gates_in + rows * layer.in),
                       int(layer.gates_out + rows * layer.out),
                       0,
                       0,
                       0,
                       0,
                       Form::single};
            continue;
        }
        const int k = int(rows * layer.in), n = int(rows * layer.out);
        const int x = int(layer.gates_in + first * layer.in), y = int(layer.gates_out + first * layer.out);
        const auto &matrices = layer.orders[m];
        product = {{matrices[0], matrices[1], matrices[2]},    nullptr, k, n, x, x + k, y, y + n,
                   shape.mirror ? Form::mirror : Form::general};
    }
    const auto work = [](const Product<Real> &p) {
        return p.k * (p.form == Form::single ? 1 : p.form == Form::mirror ? 2 : 3);
    };
    std::stable_sort(made.of, made.of + made.count, [&](const auto &a, const auto &b) { return work(a) > work(b); });
    return made;
}

// One matrix.
template <class Real> Products<Real> product_of(const Real *matrix, const Real *bias, int64_t k, int64_t n) {
    Products<Real> made;
    made.count = 1;
    made.of[0] = {{matrix}, bias, int(k), int(n), 0, 0, 0, 0, Form::single};
    return made;
}

template <class Real> Kernel<Real> choose_kernel(Arithmetic arithmetic, const Layout &layout) {
    if constexpr (sizeof(Real) == 8)
        return kernel_for<double, Arithmetic::fma>(layout);
    else
        return arithmetic == Arithmetic::fma     ? kernel_for<float, Arithmetic::fma>(layout)
               : arithmetic == Arithmetic::split ? kernel_for<float, Arithmetic::split>(layout)
                                                 : kernel_for<float, Arithmetic::tf32>(layout);
}

// The operators' arguments, dense, and how their edges are run.
class Run {
public:
    const Shape shape;
    const Arithmetic arithmetic;
    const Tensor x, vectors, frames, envelope, hidden, index, weights, halves;
    const std::shared_ptr<const OwnedEdges> by_receiver;
    const cudaStream_t stream;
    const int64_t atoms, edges, width;

    Run(const EdgeBlock &in, const Shape &shape, cudaStream_t stream)
        : shape(shape), arithmetic(arithmetic_of(in.x.scalar_type())), x(dense(in.x)), vectors(dense(in.vectors)),
          frames(dense(in.frames)), envelope(dense(in.envelope)), hidden(dense(in.hidden)), index(dense(in.edge_index)),
          weights(dense(in.weights)), halves(arithmetic == Arithmetic::tf32 ? weights.to(at::kHalf) : Tensor()),
          by_receiver(owned_edges(index, x.size(0), x.size(0), false, stream)), stream(stream), atoms(x.size(0)),
          edges(index.size(1)), width(x.size(1) * x.size(2)) {}

    template <class Real> Problem<Real> problem() const {
        const int64_t channels = hidden.size(1);
        const Matrices<Real> matrices(shape, weights, channels);
        Problem<Real> made{shape, Layout(shape, channels, sizeof(Real))};
        made.radial = product_of(matrices.radial, matrices.radial_bias, channels, shape.weights);
        made.first = products_of(shape, matrices.first);
        made.second = products_of(shape, matrices.second);
        made.second_back = products_of(shape, matrices.second_back);
        made.first_back = products_of(shape, matrices.first_back);
        made.radial_back = product_of<Real>(matrices.radial_back, nullptr, shape.weights, channels);
        // Few columns: the warps share the rows.
        made.radial_back.part_width = int(channels + 3) / 4 * 4;
        made.radial_back.parts = int(std::min(std::max<int64_t>(TILE_WARPS * PANEL / channels, 1),
                                              int64_t(made.layout.wide / made.radial_back.part_width)));
        const auto data = [](const Tensor &tensor) { return tensor.const_data_ptr<Real>(); };
        made.x = data(x);
        made.vectors = data(vectors);
        made.frames = data(frames);
        made.envelope = data(envelope);
        made.hidden = data(hidden);
        made.receiver = index.const_data_ptr<int64_t>();
        made.sender = made.receiver + edges;
        made.first_edge = by_receiver->first.const_data_ptr<int64_t>();
        made.wrong = by_receiver->wrong.const_data_ptr<int>();
        made.end = edges;
        made.weights = data(weights);
        made.halves = halves.defined() ? halves.const_data_ptr<c10::Half>() : nullptr;
        made.radial_channels = int(channels);
        return made;
    }

    // Run the edges from problem.begin to problem.end.
    template <class Real> void run(const Kernel<Real> &kernel, Problem<Real> problem) const {
        const int64_t tiles = (problem.end - problem.begin + kernel.edges - 1) / kernel.edges;
        const int64_t numbers = int64_t(kernel.edges) * problem.layout.edge;
        const int64_t blocks = kernel.shared ? tiles : std::min<int64_t>(tiles, multiprocessors());
        const Tensor memory = at::empty({kernel.shared ? 0 : blocks * numbers}, x.options());
        problem.memory = memory.mutable_data_ptr<Real>();
        launch_with_memory(kernel.run, kernel.shared ? numbers * int64_t(sizeof(Real)) : 0, dim3(unsigned(blocks)),
                           TILE_THREADS, stream, problem);
    }

    // Memory for what several tiles give to one receiver.
    template <class Real> Tensor partial(const Kernel<Real> &kernel) const {
        return at::empty({(edges + kernel.edges - 1) / kernel.edges * 2 * width}, x.options());
    }

    template <class Real>
    void finish(const Kernel<Real> &kernel, const Problem<Real> &problem, const Real *senders, Real *out) const {
        launch(finish_receivers<Real>, blocks_of(atoms * width), THREADS, stream, problem.first_edge, problem.wrong,
               atoms, width, kernel.edges, problem.sums, problem.partial, senders, out);
    }
};

std::tuple<Tensor, Tensor> edge_block_cuda(const EdgeBlock &block, int64_t keep) {
    const Shape shape = block.shape();
    check_block(block, shape);
    const Tensor &x = block.x, &edge_index = block.edge_index;
    const c10::cuda::CUDAGuard guard(x.device());
    const int64_t allowed = allowance(keep, device_memory());
    const int64_t num_kept = kept_edges(shape, x, edge_index.size(1), allowed).expect_int();
    const Tensor kept = at::empty({num_kept, shape.state}, x.options());
    if (edge_index.size(1) == 0 || x.size(0) == 0)
        return {at::zeros(x.sizes(), x.options()), kept};
    const Tensor out = at::empty(x.sizes(), x.options());
    const Run run(block, shape, c10::cuda::getCurrentCUDAStream());
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "edge_block_cuda", [&] {
        auto problem = run.problem<scalar_t>();
        const auto kernel = choose_kernel<scalar_t>(run.arithmetic, problem.layout);
        const Tensor partial = run.partial(kernel);
        problem.kept = kept.mutable_data_ptr<scalar_t>();
        problem.num_kept = num_kept;
        problem.sums = out.mutable_data_ptr<scalar_t>();
        problem.partial = partial.mutable_data_ptr<scalar_t>();
        run.run(kernel, problem);
        run.finish<scalar_t>(kernel, problem, nullptr, problem.sums);
    });
    return {out, kept};
}

EdgeGradients edge_block_backward_cuda(const Tensor &grad, const EdgeBlock &block, const Tensor &kept) {
    const Shape shape = block.shape();
    check_block(block, shape);
    check_block_grad(grad, block, kept, shape);
    const Tensor &x = block.x, &edge_index = block.edge_index;
    const c10::cuda::CUDAGuard guard(x.device());
    const auto empty = [](const Tensor &like) { return at::empty(like.sizes(), like.options()); };
    const Tensor on_vectors = empty(block.vectors), on_envelope = empty(block.envelope),
                 on_hidden = empty(block.hidden);
    if (edge_index.size(1) == 0 || x.size(0) == 0)
        return {at::zeros(x.sizes(), x.options()), on_vectors, on_envelope, on_hidden};
    const Tensor on_x = empty(x), on_receivers = empty(x), from = dense(grad), state = kept.contiguous();
    const Run run(block, shape, c10::cuda::getCurrentCUDAStream());
    const auto by_sender = owned_edges(run.index, run.atoms, run.atoms, true, run.stream);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "edge_block_backward_cuda", [&] {
        auto problem = run.problem<scalar_t>();
        const auto kernel = choose_kernel<scalar_t>(run.arithmetic, problem.layout);
        const int64_t fitting = SLAB_BYTES / (run.width * int64_t(sizeof(scalar_t))) / kernel.edges;
        const int64_t slab = std::min(std::max<int64_t>(fitting, 1) * kernel.edges, run.edges);
        const Tensor partial = run.partial(kernel), waiting = at::empty({slab * run.width}, x.options());
        const auto data = [](const Tensor &tensor) { return tensor.mutable_data_ptr<scalar_t>(); };
        problem.grad = from.const_data_ptr<scalar_t>();
        problem.kept = const_cast<scalar_t *>(state.const_data_ptr<scalar_t>()); // is only read going backward
        problem.num_kept = state.size(0);
        problem.sums = data(on_receivers);
        problem.partial = data(partial);
        problem.waiting = data(waiting);
        problem.on_vectors = data(on_vectors);
        problem.on_envelope = data(on_envelope);
        problem.on_hidden = data(on_hidden);
        for (int64_t begin = 0; begin < run.edges; begin += slab) {
            problem.begin = begin;
            problem.end = std::min(begin + slab, run.edges);
            run.run(kernel, problem);
            launch(serve_senders<scalar_t>, unsigned(run.atoms), THREADS, run.stream,
                   by_sender->first.const_data_ptr<int64_t>(), by_sender->order.const_data_ptr<int64_t>(),
                   problem.waiting, begin, problem.end, run.width, begin > 0, data(on_x));
        }
        run.finish<scalar_t>(kernel, problem, data(on_x), data(on_x));
        for (const Tensor &other : {on_vectors, on_envelope, on_hidden})
            launch(fill_where_wrong<scalar_t>, 256, THREADS, run.stream, problem.wrong, data(other), other.numel());
    });
    return {on_x, on_vectors, on_envelope, on_hidden};
}

Tensor bond_frames_cuda(const Tensor &vectors, int64_t l_max) {
    check_bonds(vectors, l_max);
    const c10::cuda::CUDAGuard guard(vectors.device());
    const Shape shape(l_max, 0, 1, 1, true);
    const int64_t edges = vectors.size(0);
    const Tensor from = vectors.contiguous(), frames = at::empty({edges, shape.frame_size}, vectors.options());
    if (frames.numel() > 0)
        AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "bond_frames_cuda", [&] {
            launch(bond_frames_kernel<scalar_t>, unsigned((edges + WARP - 1) / WARP), WARP,
                   c10::cuda::getCurrentCUDAStream(), from.const_data_ptr<scalar_t>(), edges, int(l_max),
                   shape.frame_size, frames.mutable_data_ptr<scalar_t>());
        });
    return frames;
}

// Calls f with the arguments as the kernels read them.
template <class F> void with_splines(const RadialSplines &in, F &&f) {
    const c10::cuda::CUDAGuard guard(in.lengths.device());
    const Tensor lengths = in.lengths.contiguous(), pair = in.pair.contiguous(), tables = in.tables.contiguous();
    TORCH_CHECK_VALUE(lengths.size(0) == 0 || tables.size(0) > 0, "tables must have one pair at least; found ",
                      tables.sizes());
    AT_DISPATCH_FLOATING_TYPES(lengths.scalar_type(), "radial_splines_cuda", [&] {
        f(Splines<scalar_t>{lengths.const_data_ptr<scalar_t>(), tables.const_data_ptr<scalar_t>(),
                            pair.const_data_ptr<int64_t>(), lengths.size(0), tables.size(0), tables.size(1),
                            tables.size(2), tables.size(3), in.start, in.step});
    });
}

Tensor radial_splines_cuda(const RadialSplines &in) {
    check_splines(in);
    const Tensor out = at::empty({in.lengths.size(0), in.tables.size(3)}, in.lengths.options());
    if (out.numel() > 0)
        with_splines(in, [&]<class Real>(const Splines<Real> &splines) {
            launch(splines_kernel<Real>, blocks_of(splines.edges * WARP), THREADS, c10::cuda::getCurrentCUDAStream(),
                   splines, out.mutable_data_ptr<Real>());
        });
    return out;
}

Tensor radial_splines_backward_cuda(const Tensor &grad, const RadialSplines &in) {
    check_splines(in);
    check_splines_grad(grad, in);
    const Tensor from = grad.contiguous(), out = at::empty(in.lengths.sizes(), in.lengths.options());
    if (out.numel() > 0)
        with_splines(in, [&]<class Real>(const Splines<Real> &splines) {
            launch(splines_backward_kernel<Real>, blocks_of(splines.edges * WARP), THREADS,
                   c10::cuda::getCurrentCUDAStream(), splines, from.const_data_ptr<Real>(),
                   out.mutable_data_ptr<Real>());
        });
    return out;
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, CUDA, m) {
    m.impl("bond_frames", bond_frames_cuda);
    implement_edge_block<edge_block_cuda, edge_block_backward_cuda>(m);
    implement_splines<radial_splines_cuda, radial_splines_backward_cuda>(m);
}

} // namespace equistride
