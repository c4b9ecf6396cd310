// Matrix products of a tile of edges on the GPU: its rows lie in shared memory, the matrices stream from L2.
//
// A warp takes a panel of 32 columns for all edges of the tile: a lane has four columns of some of the edges, in
// registers. So every number of a matrix is loaded by one warp of the block, in lines of 128 bytes, well ahead; numbers
// of a row of the tile are loaded by fours. Rows of the tile lie 16 bytes beyond a multiple of 128 apart, so that no
// bank is met twice. How a lane multiplies is its own matter: by FMA in the numbers' own precision (`Fma`), or on
// tensor cores (tensor_cores.h). Every sum has one order.
#pragma once
#include "edge_block/problem.h"

namespace equistride {

namespace {

template <class Real> struct alignas(16) Four {
    Real of[4];
};
template <class Real> __device__ __forceinline__ Four<Real> load_four(const Real *from) {
    return *reinterpret_cast<const Four<Real> *>(from);
}

// Sums of four columns that begin with the bias.
template <class Real, int N> __device__ __forceinline__ void begin_with(const Real *from, Real (&sum)[N][4]) {
    const Four<Real> bias = load_four(from);
#pragma unroll
    for (int i = 0; i < N; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j)
            sum[i][j] = bias.of[j];
    }
}

// The memory of the block's tile, of so many numbers: shared memory, or the block's part of `memory`.
template <bool SHARED, class Real> __device__ __forceinline__ Real *memory_of_tile(Real *memory, int64_t numbers) {
    if constexpr (SHARED)
        return shared_memory<Real>();
    else
        return memory + int64_t(blockIdx.x) * numbers;
}

// A warp takes one row of the tile after the other; in between, body(row).
template <class Body> __device__ __forceinline__ void each_row(int count, Body &&body) {
#pragma unroll 1
    for (int row = threadIdx.x / WARP; row < count; row += TILE_WARPS)
        body(row);
}

// Rows of the tile, `place` numbers from `a`: some; those of a and b summed; ROWS of a, then those of b.
template <class Real> struct PlainRows {
    const Real *a;
    int step;
    __device__ __forceinline__ int place(int i) const { return i * step; }
    __device__ __forceinline__ Four<Real> four(int at) const { return load_four(a + at); }
    __device__ __forceinline__ Real one(int at) const { return a[at]; }
};
template <class Real> struct SummedRows {
    const Real *a, *b;
    int step;
    __device__ __forceinline__ int place(int i) const { return i * step; }
    __device__ __forceinline__ Four<Real> four(int at) const {
        const Four<Real> left = load_four(a + at), right = load_four(b + at);
        return {
            {left.of[0] + right.of[0], left.of[1] + right.of[1], left.of[2] + right.of[2], left.of[3] + right.of[3]}};
    }
    __device__ __forceinline__ Real one(int at) const { return a[at] + b[at]; }
};
template <class Real, int ROWS> struct BothRows {
    const Real *a;
    int to_b, step;
    __device__ __forceinline__ int place(int i) const { return i < ROWS ? i * step : to_b + (i - ROWS) * step; }
    __device__ __forceinline__ Four<Real> four(int at) const { return load_four(a + at); }
    __device__ __forceinline__ Real one(int at) const { return a[at]; }
};

// FMA: lane = 8 * group + quad has the edges group, group + 4, ... and the columns 4 quad .. 4 quad + 3.
template <class Real_, int ROWS> struct Fma {
    using Real = Real_;
    static constexpr int EDGES = GROUPS * ROWS; // of a tile
    // Rows of a lane, of one set of edges and of two; where the second set begins among them; from one to the next.
    static constexpr int LANE_ROWS = ROWS, BOTH = 2 * ROWS, SPLIT = ROWS, STEP = GROUPS;
    static constexpr int STEP_K = 4; // numbers of k at a time

    const int quad = threadIdx.x % 8, first = threadIdx.x % WARP / 8;

    template <class Problem> __device__ explicit Fma(const Problem &) {}

    // Row i of the lane's; null: of no edge.
    static __device__ __forceinline__ Real *place(int i, Real *plus, Real *minus, int step) {
        return i < ROWS ? plus + i * step : minus + (i - ROWS) * step;
    }

    // sum[i][j] += rows[i][0 .. k) matrix[0 .. k)[j] of a panel; `aligned`: rows allow four().
    template <int N, class Rows>
    __device__ __forceinline__ void accumulate(const Rows &rows, bool aligned, const Real *matrix, int k,
                                               Real (&sum)[N][4]) const {
        constexpr int DEPTH = sizeof(Real) == 4 ? 3 : 2; // registers allow no more
        const int whole = aligned ? k / STEP_K * STEP_K : 0;
        matrix += 4 * quad;
        Four<Real> ahead[DEPTH][STEP_K];
#pragma unroll
        for (int stage = 0; stage < DEPTH; ++stage)
            if (stage * STEP_K < whole) {
#pragma unroll
                for (int p = 0; p < STEP_K; ++p)
                    ahead[stage][p] = load_four(matrix + (stage * STEP_K + p) * int(PANEL));
            }
        for (int begin = 0; begin < whole; begin += DEPTH * STEP_K) {
#pragma unroll
            for (int stage = 0; stage < DEPTH; ++stage) {
                const int at = begin + stage * STEP_K, next = at + DEPTH * STEP_K;
                if (at < whole) {
#pragma unroll
                    for (int i = 0; i < N; ++i) {
                        const Four<Real> a = rows.four(rows.place(i) + at);
#pragma unroll
                        for (int p = 0; p < STEP_K; ++p) {
#pragma unroll
                            for (int j = 0; j < 4; ++j)
                                sum[i][j] += a.of[p] * ahead[stage][p].of[j];
                        }
                    }
                    if (next < whole) {
#pragma unroll
                        for (int p = 0; p < STEP_K; ++p)
                            ahead[stage][p] = load_four(matrix + (next + p) * int(PANEL));
                    }
                }
            }
        }
#pragma unroll 1
        for (int at = whole; at < k; ++at) {
            const Four<Real> b = load_four(matrix + at * int(PANEL));
#pragma unroll
            for (int i = 0; i < N; ++i) {
                const Real a = rows.one(rows.place(i) + at);
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    sum[i][j] += a * b.of[j];
            }
        }
    }
};

// Write a lane's sums, as far as there are columns.
template <class How, int N>
__device__ __forceinline__ void store(const typename How::Real (&sum)[N][4], typename How::Real *plus,
                                      typename How::Real *minus, int step, int columns, bool aligned) {
    using Real = typename How::Real;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        Real *const place = How::place(i, plus, minus, step);
        if (place == nullptr)
            continue;
        if (aligned && columns >= 4) {
            *reinterpret_cast<Four<Real> *>(place) = {{sum[i][0], sum[i][1], sum[i][2], sum[i][3]}};
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j)
                if (j < columns)
                    place[j] = sum[i][j];
        }
    }
}

// All products, by all warps of the block. x and y are the tile's rows; x is not written meanwhile.
template <class How, class Real = typename How::Real>
__device__ __forceinline__ void multiply(const How &how, const Products<Real> &products, const Real *x, int x_stride,
                                         Real *y, int y_stride) {
    const int x_step = How::STEP * x_stride, y_step = How::STEP * y_stride;
    x += how.first * x_stride;
    y += how.first * y_stride;
#pragma unroll 1
    for (int unit = threadIdx.x / WARP, before = 0, order = 0; order < products.count;) {
        const Product<Real> &product = products.of[order];
        const int panels = (product.n + int(PANEL) - 1) / int(PANEL), units = panels * products.parts;
        if (unit - before >= units) {
            before += units;
            ++order;
            continue;
        }
        const int panel = (unit - before) % panels, part = (unit - before) / panels;
        const int share =
                      ((product.k + products.parts - 1) / products.parts + How::STEP_K - 1) / How::STEP_K * How::STEP_K,
                  from = part * share, k = min(share, product.k - from); // below one for a part that has nothing left
        const int column = panel * int(PANEL) + 4 * how.quad, columns = product.n - column;
        const int64_t place = int64_t(panel) * product.k * PANEL + from * int(PANEL);
        const Real *const plus = x + product.x_plus + from, *const minus = x + product.x_minus + from;
        Real *const y_plus = y + product.y_plus + part * products.part_width + column, *const y_minus =
                                                                                           y + product.y_minus + column;
        const bool aligned = (product.x_plus | product.x_minus) % 4 == 0,
                   aligned_out = (product.y_plus | product.y_minus | products.part_width) % 4 == 0;
        unit += TILE_WARPS;
        if (product.form == Form::mirror) {
            Real sum[How::BOTH][4] = {};
            how.accumulate(BothRows<Real, How::SPLIT>{plus, product.x_minus - product.x_plus, x_step}, aligned,
                           product.matrix[0] + place, k, sum);
            store<How>(sum, y_plus, y_minus, y_step, columns, aligned_out);
            continue;
        }
        // A complex product with three real ones: y+ = W1 (a + b) - (W1 + W2) b, y- = W1 (a + b) + (W2 - W1) a.
        constexpr int N = How::LANE_ROWS;
        const bool general = product.form == Form::general;
        Real start[N][4] = {};
        if (product.bias != nullptr)
            begin_with(product.bias + column, start);
        if (general)
            how.accumulate(SummedRows<Real>{plus, minus, x_step}, aligned, product.matrix[0] + place, k, start);
#pragma unroll 1
        for (int half = 0; half < (general ? 2 : 1); ++half) {
            Real sum[N][4];
#pragma unroll
            for (int i = 0; i < N; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    sum[i][j] = start[i][j];
            }
            const Real *const matrix = general ? product.matrix[1 + half] : product.matrix[0];
            how.accumulate(PlainRows<Real>{general && half == 0 ? minus : plus, x_step}, aligned, matrix + place, k,
                           sum);
            store<How>(sum, half == 0 ? y_plus : y_minus, nullptr, y_step, columns, aligned_out);
        }
    }
}

} // namespace

} // namespace equistride
