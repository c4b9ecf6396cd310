// The convolution on the GPU: one warp a unit of paths and a receiver (a sender where the gradient of x is wanted),
// sums in registers, no atomic operation, every sum in one order. Nothing waits for the host and nothing is copied to
// the device (the paths are parameters of the kernels), so that a CUDA graph can hold it all.
//
// What bounds it, for TrajCast's 30 paths of 64 channels (l <= 2) in float32, an edge, forward: 1,920 weights, 7.7 kB,
// are read once from memory; 4.6 kB of x come from L2 (rows of senders are shared by their receivers), the harmonics
// and numbers add 60 bytes. The arithmetic is 60 kFLOP with the contraction that a warp repeats for itself. At 4.8 TB/s
// and 60 TFLOP/s (H200) that is 1.6 ns of memory traffic against 1 ns of arithmetic. A radial table instead of stored
// weights takes the 7.7 kB away and reads four rows of the table, 31 kB, from L1 and L2: blocks of one unit run
// together, so that its columns of the table stay there. Backward moves the weights and their gradients once each and,
// walking over senders, the gradient of the output, 26 kB an edge from L2; it needs [units, E, 10] numbers of scratch
// for the gradients of y and the lengths.
//
// Registers (nvcc 13.0, sm_90; sm_80 differs by a few): sparse forward 124 in float32 and 126 in float64, backward 96
// and 162, none of them spills; dense up to 128, some spill up to 48 bytes.
#pragma once
#include "cuda_edges.h"
#include "tensor_product/convolve.h"
#include "tensor_product/dense_kernels.h"
#include "tensor_product/sparse_kernels.h"

namespace equistride {

namespace {

// Which columns of y the slots of Gradient::parts belong to: up to three ranges a unit.
struct Ranges {
    int units, count, slot[3], length[3], column[MAX_UNITS][3]; // column -1: none
};

// Sum what the units of a launch give to y and the lengths, in their order. One thread an edge and column.
template <class Real>
__global__ void gather_parts(const __grid_constant__ Ranges ranges, const Real *parts, int slots, int64_t edges,
                             int y_width, const int *wrong, bool add, Real *on_y, Real *on_lengths) {
    const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, e = k / (y_width + 1);
    const int column = int(k % (y_width + 1));
    Real *const to = column == y_width ? on_lengths + e : on_y + e * y_width + column;
    if (e >= edges || (column == y_width ? on_lengths : on_y) == nullptr)
        return;
    Real sum = add ? *to : Real(0);
    for (int unit = 0; unit < ranges.units; ++unit) {
        const Real *from = parts + (unit * edges + e) * slots;
        if (column == y_width) {
            sum += from[slots - 1];
            continue;
        }
        for (int r = 0; r < ranges.count; ++r) {
            const int at = column - ranges.column[unit][r];
            if (ranges.column[unit][r] >= 0 && at >= 0 && at < ranges.length[r])
                sum += from[ranges.slot[r] + at];
        }
    }
    *to = *wrong != 0 ? not_a_number<Real>() : sum;
}

template <class Real> Ranges ranges_of(const SparseLaunch<Real> &launch) {
    Ranges ranges{launch.count, 3, {0, 1, 4}, {1, 3, 5}, {}};
    for (int u = 0; u < launch.count; ++u)
        for (int l = 0; l <= SPARSE_DEGREE; ++l)
            ranges.column[u][l] = launch.units.all[u].y[l];
    return ranges;
}
template <class Real> Ranges ranges_of(const DenseLaunch<Real> &launch) {
    Ranges ranges{launch.count, 1, {0, 0, 0}, {2 * launch.units.l2 + 1, 0, 0}, {}};
    for (int u = 0; u < launch.count; ++u)
        ranges.column[u][0] = launch.units.y;
    return ranges;
}

// The arguments as the kernels read them, and the order in which their owners walk over the edges.
struct Arguments {
    Tensor x, y, weights, lengths, index; // dense; no lengths without a table
    double start, step;
    std::shared_ptr<const OwnedEdges> owned;

    explicit Arguments(const Convolution &in)
        : x(in.x.contiguous()), y(in.y.contiguous()), weights(in.weights.contiguous()),
          lengths(in.lengths == nullptr ? Tensor() : in.lengths->contiguous()), index(in.edge_index.contiguous()),
          start(in.start), step(in.step) {}

    template <class Real>
    Problem<Real> arrange(int64_t receivers, bool by_sender, int64_t out_width, cudaStream_t stream) {
        const int64_t edges = index.size(1), senders = x.size(0);
        owned = owned_edges(index, senders, receivers, by_sender, stream);
        Problem<Real> in{};
        in.x = x.const_data_ptr<Real>();
        in.y = y.const_data_ptr<Real>();
        in.weights = weights.const_data_ptr<Real>();
        in.lengths = lengths.defined() ? lengths.const_data_ptr<Real>() : nullptr;
        in.receiver = index.const_data_ptr<int64_t>();
        in.sender = in.receiver + edges;
        in.order = by_sender ? owned->order.const_data_ptr<int64_t>() : nullptr;
        in.first = owned->first.const_data_ptr<int64_t>();
        in.wrong = owned->wrong.const_data_ptr<int>();
        in.x_width = x.size(1);
        in.weights_width = weights.size(1);
        in.out_width = out_width;
        in.edges = edges;
        in.owners = by_sender ? senders : receivers;
        in.y_width = int(y.size(1));
        in.start = start;
        in.step = step;
        in.last = double(weights.size(0) - 3);
        return in;
    }
};

template <class Real> constexpr int FORWARD_SLOTS = sizeof(Real) == 4 ? 2 : 1; // registers allow no more

template <class Real, bool TABLE>
void forward_all(const Launches<Real> &launches, const Problem<Real> &in, Real *out, cudaStream_t stream) {
    constexpr int V = FORWARD_SLOTS<Real>;
    const decltype(&sparse_forward<Real, 0, V, TABLE>) sparse[] = {
        sparse_forward<Real, 0, V, TABLE>, sparse_forward<Real, 1, V, TABLE>, sparse_forward<Real, 2, V, TABLE>};
    const auto run = [&](auto kernel, const auto &of) {
        launch(kernel, dim3(unsigned((in.owners + WARPS - 1) / WARPS), unsigned(of.count)), THREADS, stream, of.units,
               in, out, launches.add);
    };
    for (const auto &of : launches.sparse)
        run(sparse[of.l1], of);
    for (const auto &of : launches.dense)
        run(of.units.l3 > SPARSE_DEGREE ? dense_forward<Real, MAX_ORDERS, TABLE>
                                        : dense_forward<Real, FEW_ORDERS, TABLE>,
            of);
}

template <class Real> struct Outputs { // null where not wanted
    Real *x, *y, *weights, *lengths;
};

template <class Real, bool TABLE, bool BY_SENDER>
void backward_all(const Launches<Real> &launches, const Problem<Real> &in, const Real *grad, const Outputs<Real> &to,
                  const at::TensorOptions &options, cudaStream_t stream) {
    const decltype(&sparse_backward<Real, 0, TABLE, BY_SENDER>) sparse[] = {sparse_backward<Real, 0, TABLE, BY_SENDER>,
                                                                            sparse_backward<Real, 1, TABLE, BY_SENDER>,
                                                                            sparse_backward<Real, 2, TABLE, BY_SENDER>};
    static_assert(SPARSE_SLOTS == DENSE_SLOTS);
    int most = 0;
    for (const auto &of : launches.sparse)
        most = std::max(most, of.count);
    for (const auto &of : launches.dense)
        most = std::max(most, of.count);
    const bool gather = to.y != nullptr || to.lengths != nullptr;
    const Tensor parts = at::empty({gather ? most * in.edges * SPARSE_SLOTS : 0}, options);
    Gradient<Real> gradient{grad,
                            to.x,
                            to.weights,
                            gather ? parts.mutable_data_ptr<Real>() : nullptr,
                            launches.add,
                            to.y != nullptr,
                            to.lengths != nullptr};
    bool add = false;
    const auto run = [&](auto kernel, const auto &of) {
        if (in.owners > 0)
            launch(kernel, dim3(unsigned((in.owners + WARPS - 1) / WARPS), unsigned(of.count)), THREADS, stream,
                   of.units, in, gradient);
        if (gather)
            launch(gather_parts<Real>, blocks_of(in.edges * (in.y_width + 1)), THREADS, stream, ranges_of(of),
                   gradient.parts, SPARSE_SLOTS, in.edges, in.y_width, in.wrong, add, to.y, to.lengths);
        add = true;
    };
    for (const auto &of : launches.sparse)
        run(sparse[of.l1], of);
    for (const auto &of : launches.dense)
        run(of.units.l3 > SPARSE_DEGREE ? dense_backward<Real, MAX_ORDERS, TABLE>
                                        : dense_backward<Real, FEW_ORDERS, TABLE>,
            of);
    if (to.weights != nullptr)
        launch(fill_where_wrong<Real>, 256, THREADS, stream, in.wrong, to.weights, in.edges * in.weights_width);
}

} // namespace

template <class Real> Tensor convolve(const Convolution &convolution, const Paths &paths, int64_t receivers) {
    Arguments arguments(convolution);
    const Tensor &x = arguments.x;
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    const Plan<Real> plan(paths, convolution.couplings, x.size(1), arguments.y.size(1));
    const Launches<Real> launches(plan, convolution.couplings, Direction::forward, WARP * FORWARD_SLOTS<Real>);
    const bool none = receivers == 0 || arguments.index.size(1) == 0;
    const Tensor out = none || launches.clear ? at::zeros({receivers, paths.out_width}, x.options())
                                              : at::empty({receivers, paths.out_width}, x.options());
    if (none)
        return out;
    const auto in = arguments.arrange<Real>(receivers, false, paths.out_width, stream);
    auto *const to = out.mutable_data_ptr<Real>();
    if (arguments.lengths.defined())
        forward_all<Real, true>(launches, in, to, stream);
    else
        forward_all<Real, false>(launches, in, to, stream);
    return out;
}

template <class Real>
Gradients convolve_backward(const Tensor &grad, const Convolution &convolution, const Paths &paths, Wanted wanted) {
    Arguments arguments(convolution);
    const Tensor &x = arguments.x, &y = arguments.y, dense = grad.contiguous();
    const bool table = arguments.lengths.defined();
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    const Plan<Real> plan(paths, convolution.couplings, x.size(1), y.size(1));
    const Launches<Real> launches(plan, convolution.couplings, Direction::backward, WARP);
    const bool none = arguments.index.size(1) == 0;
    const Tensor on_x = memory_like(x, wanted[0], none || launches.clear), on_y = memory_like(y, wanted[1]),
                 on_third = memory_like(convolution.third(), wanted[2]);
    if (none || !(wanted[0] || wanted[1] || wanted[2]))
        return Gradients(on_x, on_y, on_third);
    const auto in = arguments.arrange<Real>(grad.size(0), wanted[0], paths.out_width, stream);
    const auto pointer = [](const Tensor &tensor, bool want) {
        return want ? tensor.mutable_data_ptr<Real>() : nullptr;
    };
    const Outputs<Real> to{pointer(on_x, wanted[0]), pointer(on_y, wanted[1]), pointer(on_third, wanted[2] && !table),
                           pointer(on_third, wanted[2] && table)};
    const Real *from = dense.const_data_ptr<Real>();
    const auto run = table ? (wanted[0] ? backward_all<Real, true, true> : backward_all<Real, true, false>)
                           : (wanted[0] ? backward_all<Real, false, true> : backward_all<Real, false, false>);
    run(launches, in, from, to, x.options(), stream);
    return Gradients(on_x, on_y, on_third);
}

} // namespace equistride
