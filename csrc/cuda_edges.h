// Edges on the GPU in the order of their owners, found once for all operators of a step, and what becomes of outputs
// where the edges are wrong.
#pragma once
#include "cuda_launch.h"

#include <ATen/core/Tensor.h>
#include <limits>
#include <memory>

namespace equistride {

namespace {

template <class Real> __device__ Real not_a_number() { return std::numeric_limits<Real>::quiet_NaN(); }

template <class Real> __global__ void fill_where_wrong(const int *wrong, Real *values, int64_t count) {
    if (*wrong == 0)
        return;
    for (int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; k < count; k += int64_t(gridDim.x) * blockDim.x)
        values[k] = not_a_number<Real>();
}

} // namespace

// An owner is the receiver of an edge, in the order of the edges, or the sender, through `order`.
struct OwnedEdges {
    at::Tensor order; // of senders; stable, so that each takes its terms in the order of the edges
    at::Tensor first; // [owners + 1]
    // not zero: edges that are not sorted or name atoms that are not there, which a kernel cannot raise
    at::Tensor wrong;
};

// Of edges `index` [2, E], dense. They are known, for all that ask, while this tensor lives and nobody writes to it (by
// torch, which counts that; not through `.data` or another library's view);
// but what was found outside a captured graph, or in another, is no part of it and found again.
std::shared_ptr<const OwnedEdges> owned_edges(const at::Tensor &index, int64_t senders, int64_t receivers,
                                              bool by_sender, cudaStream_t stream);

} // namespace equistride
