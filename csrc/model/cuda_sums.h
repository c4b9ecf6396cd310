// Sums over atoms by one block of threads, in one order: what a stride needs of them is a few numbers, for which a
// launch a pass would cost more than the passes of one block.
#pragma once
#include "cuda_launch.h"
#include "neighbors/lattice.h"

namespace equistride {

namespace {

constexpr int SUM_THREADS = 512;

// Sums over the atoms of what add(atom, sums) adds, the same in all threads. All threads of the block call it.
template <int N, class Add> __device__ void sum_atoms(int64_t atoms, double (&sums)[N], const Add &add) {
    __shared__ double of_warp[SUM_THREADS / WARP][N];
    for (double &sum : sums)
        sum = 0;
    for (int64_t i = threadIdx.x; i < atoms; i += SUM_THREADS)
        add(i, sums);
    __syncthreads(); // all have read what was there
    for (int k = 0; k < N; ++k) {
        const double sum = sum_lanes(sums[k]);
        if (threadIdx.x % WARP == 0)
            of_warp[threadIdx.x / WARP][k] = sum;
    }
    __syncthreads();
    for (int k = 0; k < N; ++k) {
        sums[k] = 0;
        for (int w = 0; w < SUM_THREADS / WARP; ++w)
            sums[k] += of_warp[w][k];
    }
}

// Add an atom's inertia: xx, yy, zz, xy, xz, yz.
__device__ inline void add_inertia(double mass, const double *arm, double *inertia) {
    for (int k = 0; k < 3; ++k) {
        const int a = (k + 1) % 3, b = (k + 2) % 3;
        inertia[k] += mass * (arm[a] * arm[a] + arm[b] * arm[b]);
    }
    inertia[3] -= mass * arm[0] * arm[1];
    inertia[4] -= mass * arm[0] * arm[2];
    inertia[5] -= mass * arm[1] * arm[2];
}

} // namespace

} // namespace equistride
