// The block on the GPU: a block of threads takes a tile of atoms through it, and back, as the CPU does with a dozen.
#pragma once
#include "atom_block/norm_kernels.h"
#include "atom_block/weights.h"
#include "edge_block/sigmoid.h"
#include "edge_block/tensor_cores.h"

namespace equistride {

namespace {

// Rows of the tile's memory, each an atom's: features, or what lies between the layers after the gates, [size, more of
// channels and hidden]; what lies between the layers before the gates, or features; backward also a gradient to
// features.
struct AtomLayout {
    int wide, inner, grad; // from row to row
    int atom;              // numbers an atom, in all

    AtomLayout(const AtomShape &shape, bool backward, int64_t bytes) {
        const int64_t features = shape.size * shape.channels, rows = shape.size * shape.hidden;
        wide = row_step(std::max(features, rows), bytes);
        inner = row_step(std::max(features, shape.gates + rows), bytes);
        grad = backward ? row_step(features, bytes) : 0;
        atom = wide + inner + grad;
    }
};

template <class Real> struct AtomProblem {
    AtomShape shape;
    AtomLayout layout;
    AtomWeights<Real> of;
    const Real *x, *messages, *grad; // grad null going forward
    Real *out;
    int64_t atoms;
    const Real *weights;     // all of them,
    const c10::Half *halves; // which are not there as float16
    Real *memory;            // where it does not fit into shared memory: of each block
};

template <class How, bool SHARED> struct AtomTile {
    using Real = typename How::Real;
    static constexpr int ATOMS = How::EDGES;

    const AtomProblem<Real> &in;
    int64_t begin; // its first atom
    int count;     // its atoms

    __device__ __forceinline__ Real *memory() const {
        return memory_of_tile<SHARED>(in.memory, int64_t(ATOMS) * in.layout.atom);
    }
    __device__ __forceinline__ Real *wide(int atom) const { return memory() + atom * in.layout.wide; }
    __device__ __forceinline__ Real *inner(int atom) const {
        return memory() + int64_t(ATOMS) * in.layout.wide + atom * in.layout.inner;
    }
    __device__ __forceinline__ Real *grad(int atom) const {
        return memory() + int64_t(ATOMS) * (in.layout.wide + in.layout.inner) + atom * in.layout.grad;
    }

    // body(atom, place among its features, place among those of all atoms), for each number by one thread.
    template <class Body> __device__ __forceinline__ void each_feature(Body &&body) const {
        const int width = int(in.shape.size * in.shape.channels);
#pragma unroll 4
        for (int k = threadIdx.x; k < count * width; k += TILE_THREADS)
            body(k / width, k % width, begin * width + k);
    }
    __device__ __forceinline__ Real feature(int64_t k) const { return in.x[k] + in.messages[k]; }
};

// y = x times the matrices, of the first row also the gates. x and y are of the tile's first atom; x is not written
// meanwhile.
template <class How, class Real = typename How::Real>
EQUISTRIDE_NOINLINE __device__ void multiply_rows(const AtomProblem<Real> &in, const AtomLayer<Real> layer,
                                                  const Real *x, int x_stride, Real *y, int y_stride) {
    const How how(in);
    const int k_in = int(layer.in), n_out = int(layer.out), gates_in = int(layer.gates_in),
              gates_out = int(layer.gates_out), of_first = int(padded(n_out + gates_out) / PANEL),
              of_others = int(padded(n_out) / PANEL), units = of_first + int(in.shape.size - 1) * of_others;
#pragma unroll 1
    for (int unit = threadIdx.x / WARP; unit < units; unit += TILE_WARPS) {
        const int row = unit < of_first ? 0 : 1 + (unit - of_first) / of_others,
                  panel = row == 0 ? unit : (unit - of_first) % of_others, column = panel * int(PANEL) + 4 * how.quad,
                  k = k_in + (row == 0 ? gates_in : 0), n = n_out + (row == 0 ? gates_out : 0),
                  from = row == 0 ? 0 : gates_in + row * k_in, to = row == 0 ? 0 : gates_out + row * n_out;
        int l = 0;
        while ((l + 1) * (l + 1) <= row)
            ++l;
        Real sum[How::LANE_ROWS][4] = {};
        if (row == 0 && layer.bias != nullptr)
            begin_with(layer.bias + column, sum);
        how.accumulate(PlainRows<Real>{x + how.first * x_stride + from, How::STEP * x_stride}, from % 4 == 0,
                       layer.matrix(l) + int64_t(panel) * k * PANEL, k, sum);
        store<How>(sum, y + how.first * y_stride + to + column, nullptr, How::STEP * y_stride, n - column, to % 4 == 0);
    }
}

// By one warp: rows after the gates.
template <class Real> __device__ void gate_rows(const AtomShape &shape, const Real *inner, Real *out) {
    const int h = int(shape.hidden), l_max = int(shape.l_max);
    const Real *const rows = inner + shape.gates;
    for (int c = int(threadIdx.x) % WARP; c < h; c += WARP) {
        out[c] = rows[c] * sigmoid(rows[c]);
        for (int l = 1; l <= l_max; ++l) {
            const Real z = inner[(l - 1) * h + c], open = sigmoid(z * sigmoid(z));
            for (int at = l * l * h + c; at < (l + 1) * (l + 1) * h; at += h)
                out[at] = open * rows[at];
        }
    }
}

// Of x sigmoid(x), where open = sigmoid(x).
template <class Real> __device__ __forceinline__ Real silu_slope(Real x, Real open) {
    return open * (1 + x * (1 - open));
}

// Backwards: the gradient to the numbers between the layers takes their place.
template <class Real> __device__ void ungate_rows(const AtomShape &shape, const Real *grad, Real *inner) {
    const int h = int(shape.hidden), l_max = int(shape.l_max);
    Real *const rows = inner + shape.gates;
    for (int c = int(threadIdx.x) % WARP; c < h; c += WARP) {
        rows[c] = grad[c] * silu_slope(rows[c], sigmoid(rows[c]));
        for (int l = 1; l <= l_max; ++l) {
            const Real z = inner[(l - 1) * h + c], half = sigmoid(z), open = sigmoid(z * half);
            Real on_gate = 0;
            for (int at = l * l * h + c; at < (l + 1) * (l + 1) * h; at += h) {
                on_gate += grad[at] * rows[at];
                rows[at] = grad[at] * open;
            }
            inner[(l - 1) * h + c] = on_gate * open * (1 - open) * silu_slope(z, half);
        }
    }
}

// Between two steps all threads wait: each reads what others wrote.
template <class How, bool SHARED> __device__ void take_atoms(const AtomTile<How, SHARED> &tile) {
    using Real = typename How::Real;
    const auto &in = tile.in;
    const AtomShape &shape = in.shape;
    const AtomLayout &at = in.layout;
    Real *const wide = tile.wide(0), *const inner = tile.inner(0), *const grad = tile.grad(0);
    tile.each_feature([&](int atom, int k, int64_t all) {
        tile.wide(atom)[k] = tile.feature(all);
        if (in.grad != nullptr)
            tile.grad(atom)[k] = in.grad[all];
    });
    __syncthreads();
    each_row(tile.count, [&](int atom) {
        Real *const x = tile.wide(atom);
        normalise(shape, in.of.norm, [&](int k) { return x[k]; }, [&](int k, Real value) { x[k] = value; });
    });
    __syncthreads();
    multiply_rows<How>(in, in.of.up, wide, at.wide, inner, at.inner);
    __syncthreads();
    if (in.grad == nullptr) {
        each_row(tile.count, [&](int atom) { gate_rows(shape, tile.inner(atom), tile.wide(atom)); });
        __syncthreads();
        multiply_rows<How>(in, in.of.down, wide, at.wide, inner, at.inner);
        __syncthreads();
        tile.each_feature([&](int atom, int k, int64_t all) { in.out[all] = tile.feature(all) + tile.inner(atom)[k]; });
        return;
    }
    multiply_rows<How>(in, in.of.down_back, grad, at.grad, wide, at.wide);
    __syncthreads();
    each_row(tile.count, [&](int atom) { ungate_rows(shape, tile.wide(atom), tile.inner(atom)); });
    __syncthreads();
    multiply_rows<How>(in, in.of.up_back, inner, at.inner, grad, at.grad);
    tile.each_feature([&](int atom, int k, int64_t all) { tile.wide(atom)[k] = tile.feature(all); });
    __syncthreads();
    each_row(tile.count, [&](int atom) {
        const Real *const x = tile.wide(atom), *const g = tile.grad(atom);
        const int64_t first = (tile.begin + atom) * shape.size * shape.channels;
        normalise_back(
            shape, in.of.norm, [&](int k) { return x[k]; }, [&](int k) { return g[k]; },
            [&](int k, Real value) { in.out[first + k] = in.grad[first + k] + value; });
    });
}

// One block of threads a tile, or in turn. An atom's numbers do not depend on the tile that it is in.
template <class How, bool SHARED>
__global__ void __launch_bounds__(TILE_THREADS, 2)
    run_atoms(const __grid_constant__ AtomProblem<typename How::Real> in) {
    using Block = AtomTile<How, SHARED>;
    for (int64_t begin = int64_t(blockIdx.x) * Block::ATOMS; begin < in.atoms;
         begin += int64_t(gridDim.x) * Block::ATOMS) {
        take_atoms(Block{in, begin, int(min(int64_t(Block::ATOMS), in.atoms - begin))});
        __syncthreads();
    }
}

} // namespace

} // namespace equistride
