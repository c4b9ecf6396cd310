// What follows the tiles: sums of what several of them gave to one atom.
#pragma once
#include "cuda_edges.h"

namespace equistride {

namespace {

// What the tiles gave, receiver by receiver, in the order of the edges; and what the senders got, where there is any.
template <class Real>
__global__ void finish_receivers(const int64_t *first_edge, const int *wrong, int64_t atoms, int64_t width, int edges,
                                 const Real *sums, const Real *partial, const Real *senders, Real *out) {
    const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, atom = k / width, column = k % width;
    if (atom >= atoms)
        return;
    if (*wrong != 0) {
        out[k] = not_a_number<Real>();
        return;
    }
    const int64_t begin = first_edge[atom], end = first_edge[atom + 1];
    Real sum = 0;
    if (begin < end) {
        const int64_t tile = begin / edges, last = (end - 1) / edges;
        sum = tile == last ? sums[k] : partial[(2 * tile + 1) * width + column];
        for (int64_t next = tile + 1; next <= last; ++next)
            sum += partial[2 * next * width + column];
    }
    out[k] = senders == nullptr ? sum : senders[k] + sum;
}

// The sum over the edges begin .. end - 1 of each sender, in their order; one block an atom.
template <class Real>
__global__ void serve_senders(const int64_t *first_place, const int64_t *order, const Real *waiting, int64_t begin,
                              int64_t end, int64_t width, bool add, Real *out) {
    const int64_t atom = blockIdx.x, first = first_place[atom], count = first_place[atom + 1] - first;
    const int64_t *const mine = order + first;
    const int64_t from = lower_bound(mine, count, begin), until = lower_bound(mine, count, end);
    for (int64_t column = threadIdx.x; column < width; column += blockDim.x) {
        Real sum = add ? out[atom * width + column] : Real(0);
#pragma unroll 4
        for (int64_t k = from; k < until; ++k)
            sum += waiting[(mine[k] - begin) * width + column];
        out[atom * width + column] = sum;
    }
}

} // namespace

} // namespace equistride
