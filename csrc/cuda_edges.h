// Edges on the GPU in the order of their owners, and what becomes of outputs where the edges are wrong.
#pragma once
#include "cuda_launch.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>
#include <algorithm>
#include <limits>
#include <tuple>

namespace equistride {

namespace {

template <class Real> __device__ Real not_a_number() { return std::numeric_limits<Real>::quiet_NaN(); }

// Where the edges of each owner begin; and whether the edges are as they must be, which a kernel cannot raise.
template <class Key>
__global__ void find_edges(const Key *keys, const int64_t *receiver, const int64_t *sender, int64_t edges,
                           int64_t receivers, int64_t senders, int64_t owners, int64_t *first, int *wrong) {
    const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (k <= owners)
        first[k] = lower_bound(keys, edges, k);
    if (k >= edges)
        return;
    const int64_t t = receiver[k], s = sender[k];
    if (t < 0 || t >= receivers || s < 0 || s >= senders || (k > 0 && receiver[k - 1] > t))
        *wrong = 1; // every writer writes the same
}

template <class Real> __global__ void fill_where_wrong(const int *wrong, Real *values, int64_t count) {
    if (*wrong == 0)
        return;
    for (int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; k < count; k += int64_t(gridDim.x) * blockDim.x)
        values[k] = not_a_number<Real>();
}

// An owner is the receiver of an edge, in the order of the edges, or the sender, through `order`.
struct OwnedEdges {
    at::Tensor keys, order; // of senders
    at::Tensor first;       // [owners + 1]
    at::Tensor wrong;       // not zero: edges that are not sorted or name atoms that are not there

    // `index` [2, E], dense.
    OwnedEdges(const at::Tensor &index, int64_t senders, int64_t receivers, bool by_sender, cudaStream_t stream) {
        TORCH_CHECK_VALUE(std::max(senders, receivers) < std::numeric_limits<int>::max(),
                          "a GPU takes fewer than 2^31 rows; found ", senders, " of x and ", receivers,
                          " of the output");
        const int64_t edges = index.size(1), owners = by_sender ? senders : receivers;
        const int64_t *receiver = index.const_data_ptr<int64_t>(), *sender = receiver + edges;
        first = at::empty({owners + 1}, index.options());
        wrong = at::zeros({1}, index.options().dtype(at::kInt));
        if (by_sender) // stable: each sender takes its terms in the order of the edges
            std::tie(keys, order) = at::sort(index.select(0, 1).to(at::kInt), /*stable=*/true, 0, /*descending=*/false);
        const auto find = [&](auto kernel, const auto *sorted) {
            launch(kernel, blocks_of(std::max(edges, owners + 1)), THREADS, stream, sorted, receiver, sender, edges,
                   receivers, senders, owners, first.mutable_data_ptr<int64_t>(), wrong.mutable_data_ptr<int>());
        };
        if (by_sender)
            find(find_edges<int>, keys.const_data_ptr<int>());
        else
            find(find_edges<int64_t>, receiver);
    }
};

} // namespace

} // namespace equistride
