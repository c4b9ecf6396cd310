// Matrix products of a tile of edges on the GPU: its rows lie in shared memory, the matrices stream from L2.
//
// A warp takes a panel of 32 columns for all edges of the tile: lane = 8 * group + quad has the edges group, group + 4,
// ... and the columns 4 quad .. 4 quad + 3, in registers. So every number of a matrix is loaded by one warp of the
// block, as a line of 128 bytes, steps of four rows ahead; four numbers of a row of the tile are one load, the
// same for eight lanes. Rows of the tile lie 16 bytes beyond a multiple of 128 apart, so that the four groups meet no
// bank twice. Arithmetic is that of FMA in the numbers' own precision, and every sum has one order. Tensor cores would
// replace `accumulate`, and nothing else.
#pragma once
#include "cuda_launch.h"
#include "edge_block/kernels.h"

namespace equistride {

namespace {

constexpr int TILE_THREADS = 256, TILE_WARPS = TILE_THREADS / WARP;
constexpr int GROUPS = 4; // of edges, in a warp

enum class Form { single, mirror, general }; // of the map of an order: see Layer

// y+ and y- of an order from x+ and x-; y+ alone in the form `single`. Places are numbers from the start of a row.
template <class Real> struct Product {
    const Real *matrix[3], *bias; // bias null: none
    int k, n, x_plus, x_minus, y_plus, y_minus;
    Form form;
};

// Independent products, the longest first. With several parts each takes a share of k, and part p puts its sums at
// p * part_width.
template <class Real> struct Products {
    int count = 0, parts = 1, part_width = 0;
    Product<Real> of[MAX_L + 1];
};

template <class Real> struct alignas(16) Four {
    Real of[4];
};
template <class Real> __device__ __forceinline__ Four<Real> load_four(const Real *from) {
    return *reinterpret_cast<const Four<Real> *>(from);
}

// The lane's rows of the tile: some; those of a and b summed; those of a, then those of b.
template <class Real> struct PlainRows {
    const Real *a;
    int step;
    __device__ __forceinline__ Four<Real> four(int i, int k) const { return load_four(a + i * step + k); }
    __device__ __forceinline__ Real one(int i, int k) const { return a[i * step + k]; }
};
template <class Real> struct SummedRows {
    const Real *a, *b;
    int step;
    __device__ __forceinline__ Four<Real> four(int i, int k) const {
        const Four<Real> left = load_four(a + i * step + k), right = load_four(b + i * step + k);
        return {
            {left.of[0] + right.of[0], left.of[1] + right.of[1], left.of[2] + right.of[2], left.of[3] + right.of[3]}};
    }
    __device__ __forceinline__ Real one(int i, int k) const { return a[i * step + k] + b[i * step + k]; }
};
template <class Real, int ROWS> struct BothRows {
    const Real *a, *b;
    int step;
    __device__ __forceinline__ Four<Real> four(int i, int k) const {
        return i < ROWS ? load_four(a + i * step + k) : load_four(b + (i - ROWS) * step + k);
    }
    __device__ __forceinline__ Real one(int i, int k) const {
        return i < ROWS ? a[i * step + k] : b[(i - ROWS) * step + k];
    }
};

// sum[i][j] += rows[i][0 .. k) matrix[0 .. k)[j]; `matrix` points to the lane's columns. `aligned`: rows allow four().
template <class Real, int ROWS, class Rows>
__device__ __forceinline__ void accumulate(const Rows &rows, bool aligned, const Real *matrix, int k,
                                           Real (&sum)[ROWS][4]) {
    constexpr int STEP = 4, DEPTH = sizeof(Real) == 4 ? 3 : 2; // registers allow no more
    const int whole = aligned ? k / STEP * STEP : 0;
    Four<Real> ahead[DEPTH][STEP];
#pragma unroll
    for (int stage = 0; stage < DEPTH; ++stage)
        if (stage * STEP < whole) {
#pragma unroll
            for (int p = 0; p < STEP; ++p)
                ahead[stage][p] = load_four(matrix + (stage * STEP + p) * int(PANEL));
        }
    for (int begin = 0; begin < whole; begin += DEPTH * STEP) {
#pragma unroll
        for (int stage = 0; stage < DEPTH; ++stage) {
            const int at = begin + stage * STEP, next = at + DEPTH * STEP;
            if (at < whole) {
#pragma unroll
                for (int i = 0; i < ROWS; ++i) {
                    const Four<Real> a = rows.four(i, at);
#pragma unroll
                    for (int p = 0; p < STEP; ++p) {
#pragma unroll
                        for (int j = 0; j < 4; ++j)
                            sum[i][j] += a.of[p] * ahead[stage][p].of[j];
                    }
                }
                if (next < whole) {
#pragma unroll
                    for (int p = 0; p < STEP; ++p)
                        ahead[stage][p] = load_four(matrix + (next + p) * int(PANEL));
                }
            }
        }
    }
#pragma unroll 1
    for (int at = whole; at < k; ++at) {
        const Four<Real> b = load_four(matrix + at * int(PANEL));
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            const Real a = rows.one(i, at);
#pragma unroll
            for (int j = 0; j < 4; ++j)
                sum[i][j] += a * b.of[j];
        }
    }
}

// Write the lane's sums, rows `step` apart, as far as there are columns.
template <class Real, int ROWS>
__device__ __forceinline__ void store(const Real (*sum)[4], Real *to, int step, int columns, bool aligned) {
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        Real *const place = to + i * step;
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
template <class Real, int ROWS>
__device__ __forceinline__ void multiply(const Products<Real> &products, const Real *x, int x_stride, Real *y,
                                         int y_stride) {
    const int lane = threadIdx.x % WARP, group = lane / 8, quad = lane % 8;
    const int x_step = GROUPS * x_stride, y_step = GROUPS * y_stride;
    x += group * x_stride;
    y += group * y_stride;
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
        const int share = ((product.k + products.parts - 1) / products.parts + 3) / 4 * 4, from = part * share,
                  k = min(share, product.k - from); // below one for a part that has nothing left
        const int column = panel * int(PANEL) + 4 * quad, columns = product.n - column;
        const int64_t place = int64_t(panel) * product.k * PANEL + from * int(PANEL) + 4 * quad;
        const Real *const plus = x + product.x_plus + from, *const minus = x + product.x_minus + from;
        Real *const y_plus = y + product.y_plus + part * products.part_width + column, *const y_minus =
                                                                                           y + product.y_minus + column;
        const bool aligned = (product.x_plus | product.x_minus) % 4 == 0,
                   aligned_out = (product.y_plus | product.y_minus | products.part_width) % 4 == 0;
        unit += TILE_WARPS;
        if (product.form == Form::mirror) {
            Real sum[2 * ROWS][4] = {};
            accumulate<Real, 2 * ROWS>(BothRows<Real, ROWS>{plus, minus, x_step}, aligned, product.matrix[0] + place, k,
                                       sum);
            store<Real, ROWS>(sum, y_plus, y_step, columns, aligned_out);
            store<Real, ROWS>(sum + ROWS, y_minus, y_step, columns, aligned_out);
            continue;
        }
        // A complex product with three real ones: y+ = W1 (a + b) - (W1 + W2) b, y- = W1 (a + b) + (W2 - W1) a.
        const bool general = product.form == Form::general;
        Real start[ROWS][4] = {};
        if (product.bias != nullptr) {
            const Four<Real> bias = load_four(product.bias + column);
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    start[i][j] = bias.of[j];
            }
        }
        if (general)
            accumulate<Real, ROWS>(SummedRows<Real>{plus, minus, x_step}, aligned, product.matrix[0] + place, k, start);
#pragma unroll 1
        for (int half = 0; half < (general ? 2 : 1); ++half) {
            Real sum[ROWS][4];
#pragma unroll
            for (int i = 0; i < ROWS; ++i) {
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    sum[i][j] = start[i][j];
            }
            const Real *const matrix = general ? product.matrix[1 + half] : product.matrix[0];
            accumulate<Real, ROWS>(PlainRows<Real>{general && half == 0 ? minus : plus, x_step}, aligned,
                                   matrix + place, k, sum);
            store<Real, ROWS>(sum, half == 0 ? y_plus : y_minus, y_step, columns, aligned_out);
        }
    }
}

} // namespace

} // namespace equistride
