// What depends on a bond alone, on the GPU: its frame, and the splines of its length.
#pragma once
#include "cuda_edges.h"
#include "edge_block/rotations.h"

#include <algorithm>

namespace equistride {

namespace {

__constant__ const Recursions RECURSIONS = {};

// One lane an edge, through the recursion in shared memory; then the warp writes row by row. A block is one warp.
template <class Real>
__global__ void __launch_bounds__(WARP)
    bond_frames_kernel(const Real *vectors, int64_t edges, int l_max, int width, Real *frames) {
    __shared__ Real all[MAX_FRAME][WARP + 1];
    const int lane = threadIdx.x;
    const int64_t begin = int64_t(blockIdx.x) * WARP;
    const int count = int(min(int64_t(WARP), edges - begin));
    if (lane < count) {
        Real rows[9];
        bond_frame(vectors + 3 * (begin + lane), rows);
        each<9>([&](auto k) { all[k][lane] = rows[k]; });
        for (int l = 2, before = 0, next = 9; l <= l_max; ++l) {
            const Recursion &recursion = RECURSIONS.of[l - 2];
            Real sum = 0;
            for (int k = 0; k < recursion.count; ++k) {
                const FrameTerm &term = recursion.terms[k]; // in the order of what they are added to
                sum += Real(term.value) * all[term.a][lane] * all[before + term.b][lane];
                if (k + 1 == recursion.count || recursion.terms[k + 1].out != term.out) {
                    all[next + term.out][lane] = sum;
                    sum = 0;
                }
            }
            before = next;
            next += (2 * l + 1) * (2 * l + 1);
        }
    }
    __syncwarp();
    for (int k = lane; k < count * width; k += WARP)
        frames[begin * width + k] = all[k % width][k / width];
}

// The polynomial of the interval that holds a length, by its powers of t = 0..1; beyond the ends the first and the last
// go on. A pair without a table gives NaN; a kernel cannot raise.
template <class Real> struct Interval {
    const Real *rows; // [terms, columns]
    Real t;

    __device__ Interval(const Real *tables, int64_t pair, int64_t pairs, int64_t intervals, int64_t terms,
                        int64_t columns, Real length, double start, double step) {
        const double place = (double(length) - start) / step;
        const double knot = place >= 0 ? fmin(floor(place), double(intervals - 1)) : 0;
        const bool there = pair >= 0 && pair < pairs;
        t = there ? Real(place - knot) : not_a_number<Real>();
        rows = tables + ((there ? pair : 0) * intervals + int64_t(knot)) * terms * columns;
    }
};

template <class Real> struct Splines {
    const Real *lengths, *tables;
    const int64_t *pair;
    int64_t edges, pairs, intervals, terms, columns;
    double start, step;
};

// One warp an edge, lanes are columns.
template <class Real>
__global__ void __launch_bounds__(THREADS) splines_kernel(const __grid_constant__ Splines<Real> in, Real *out) {
    const int64_t e = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
    if (e >= in.edges)
        return;
    const Interval<Real> at(in.tables, in.pair[e], in.pairs, in.intervals, in.terms, in.columns, in.lengths[e],
                            in.start, in.step);
    for (int64_t c = threadIdx.x % WARP; c < in.columns; c += WARP) {
        Real sum = at.rows[(in.terms - 1) * in.columns + c];
        for (int64_t k = in.terms - 2; k >= 0; --k)
            sum = sum * at.t + at.rows[k * in.columns + c];
        out[e * in.columns + c] = sum;
    }
}

template <class Real>
__global__ void __launch_bounds__(THREADS)
    splines_backward_kernel(const __grid_constant__ Splines<Real> in, const Real *grad, Real *on_lengths) {
    const int64_t e = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
    const int lane = threadIdx.x % WARP;
    if (e >= in.edges)
        return;
    const Interval<Real> at(in.tables, in.pair[e], in.pairs, in.intervals, in.terms, in.columns, in.lengths[e],
                            in.start, in.step);
    Real slope = 0;
    for (int64_t c = lane; c < in.columns; c += WARP) {
        Real sum = Real(in.terms - 1) * at.rows[(in.terms - 1) * in.columns + c];
        for (int64_t k = in.terms - 2; k > 0; --k)
            sum = sum * at.t + Real(k) * at.rows[k * in.columns + c];
        slope += grad[e * in.columns + c] * sum;
    }
    slope = sum_lanes(slope);
    if (lane == 0)
        on_lengths[e] = in.pair[e] >= 0 && in.pair[e] < in.pairs ? slope * Real(1 / in.step) : not_a_number<Real>();
}

} // namespace

} // namespace equistride
