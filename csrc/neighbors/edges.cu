// Edge vectors and their gradient on the GPU. No sum depends on the order of threads.
#include "cuda_launch.h"
#include "neighbors/neighbors.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/sort.h>
#include <limits>

namespace equistride {

namespace {

constexpr int PARTS = 256;

// An edge that names an atom that is not there gives NaN; a kernel cannot raise.
template <class Real>
__global__ void vectors_kernel(const Real *r, const Real *h, const int64_t *receiver, const int64_t *sender,
                               const int *shift, int64_t edges, int64_t atoms, Real *out) {
    const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (e >= edges)
        return;
    const int64_t i = receiver[e], j = sender[e];
    const bool there = i >= 0 && i < atoms && j >= 0 && j < atoms;
    const Real s[3] = {Real(shift[3 * e]), Real(shift[3 * e + 1]), Real(shift[3 * e + 2])};
    for (int x = 0; x < 3; ++x)
        out[3 * e + x] = there ? (r[3 * j + x] - r[3 * i + x]) + ((s[0] * h[x] + s[1] * h[3 + x]) + s[2] * h[6 + x])
                               : std::numeric_limits<Real>::quiet_NaN();
}

// One warp an atom: the terms of its row in order[keys == atom]; a term below `edges` is that edge as seen by its
// receiver (minus), one above is edge - edges as seen by its sender (plus).
template <class Real>
__global__ void on_atoms_kernel(const Real *grad, const int *keys, const int64_t *order, int64_t edges, int atoms,
                                Real *out) {
    const int i = int((int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP), lane = threadIdx.x % WARP;
    if (i >= atoms)
        return;
    const int64_t begin = lower_bound(keys, 2 * edges, i), end = lower_bound(keys, 2 * edges, i + 1);
    Real sum[3] = {0, 0, 0};
    for (int64_t k = begin + lane; k < end; k += WARP) {
        const int64_t term = order[k];
        for (int x = 0; x < 3; ++x)
            sum[x] += term < edges ? -grad[3 * term + x] : grad[3 * (term - edges) + x];
    }
    for (int step = WARP / 2; step > 0; step /= 2)
        for (int x = 0; x < 3; ++x)
            sum[x] += __shfl_down_sync(ALL, sum[x], step);
    if (lane == 0)
        for (int x = 0; x < 3; ++x)
            out[3 * int64_t(i) + x] = sum[x];
}

// The sum of left (x) right over the edges, of shifts or vectors [E, 3] with gradients [E, 3]. Block b sums the edges
// b * THREADS + t + k * PARTS * THREADS. OUTPUT: partial [PARTS, 9].
template <class Left, class Real>
__global__ void outer_kernel(const Left *left, const Real *right, int64_t edges, double *partial) {
    __shared__ double shared[THREADS];
    double sum[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};
    for (int64_t e = int64_t(blockIdx.x) * THREADS + threadIdx.x; e < edges; e += int64_t(PARTS) * THREADS)
        for (int k = 0; k < 3; ++k)
            for (int x = 0; x < 3; ++x)
                sum[3 * k + x] += double(left[3 * e + k]) * double(right[3 * e + x]);
    for (int k = 0; k < 9; ++k) {
        __syncthreads();
        shared[threadIdx.x] = sum[k];
        for (int step = THREADS / 2; step > 0; step /= 2) {
            __syncthreads();
            if (int(threadIdx.x) < step)
                shared[threadIdx.x] += shared[threadIdx.x + step];
        }
        if (threadIdx.x == 0)
            partial[9 * blockIdx.x + k] = shared[0];
    }
}

template <class Real> __global__ void gather_outer_kernel(const double *partial, double sign, Real *out) {
    double sum = 0;
    for (int part = 0; part < PARTS; ++part)
        sum += partial[9 * part + threadIdx.x];
    out[threadIdx.x] = Real(sign * sum);
}

// Two stages in double precision: 6 us where cuBLAS takes 0.1 to 1.5 ms for 3 x 3 x 200,000, rounded where torch may.
template <class Left, class Real>
void sum_outer(const Left *left, const Real *right, int64_t edges, double sign, Real *out, const Tensor &like,
               cudaStream_t stream) {
    const Tensor partial = at::empty({PARTS, 9}, like.options().dtype(at::kDouble));
    launch(outer_kernel<Left, Real>, PARTS, THREADS, stream, left, right, edges, partial.mutable_data_ptr<double>());
    launch(gather_outer_kernel<Real>, 1, 9, stream, partial.const_data_ptr<double>(), sign, out);
}

Tensor edge_vectors_cuda(const Tensor &positions, const Tensor &cell, const Tensor &edge_index, const Tensor &shifts) {
    check_vectors(positions, cell, edge_index, shifts);
    const c10::cuda::CUDAGuard guard(positions.device());
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    const Tensor at = positions.contiguous(), rows = cell.contiguous(), index = edge_index.contiguous(),
                 images = shifts.contiguous();
    const int64_t edges = index.size(1);
    const Tensor vectors = at::empty({edges, 3}, positions.options());
    if (edges == 0)
        return vectors;
    const int64_t *receiver = index.const_data_ptr<int64_t>();
    AT_DISPATCH_FLOATING_TYPES(at.scalar_type(), "edge_vectors_cuda", [&] {
        launch(vectors_kernel<scalar_t>, blocks_of(edges), THREADS, stream, at.const_data_ptr<scalar_t>(),
               rows.const_data_ptr<scalar_t>(), receiver, receiver + edges, images.const_data_ptr<int>(), edges,
               at.size(0), vectors.mutable_data_ptr<scalar_t>());
    });
    return vectors;
}

std::tuple<Tensor, Tensor> edge_vectors_backward_cuda(const Tensor &grad, const Tensor &edge_index,
                                                      const Tensor &shifts, int64_t num_atoms) {
    check_edge_grad(grad, edge_index, shifts);
    TORCH_CHECK_VALUE(num_atoms >= 0 && num_atoms < (int64_t(1) << 26),
                      "num_atoms must lie between 0 and 2^26 on a GPU; found ", num_atoms);
    const c10::cuda::CUDAGuard guard(grad.device());
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    const Tensor dense = grad.contiguous(), images = shifts.contiguous();
    const int64_t edges = edge_index.size(1);
    const Tensor on_atoms = at::zeros({num_atoms, 3}, grad.options()), on_cell = at::zeros({3, 3}, grad.options());
    if (edges == 0 || num_atoms == 0)
        return {on_atoms, on_cell};
    // A stable sort of all ends of edges: each atom's terms then lie together, in the order of the edges.
    const auto [keys, order] =
        at::sort(edge_index.reshape({-1}).to(at::kInt), /*stable=*/true, 0, /*descending=*/false);
    AT_DISPATCH_FLOATING_TYPES(dense.scalar_type(), "edge_vectors_backward_cuda", [&] {
        const scalar_t *g = dense.const_data_ptr<scalar_t>();
        launch(on_atoms_kernel<scalar_t>, blocks_of(num_atoms * WARP), THREADS, stream, g, keys.const_data_ptr<int>(),
               order.const_data_ptr<int64_t>(), edges, int(num_atoms), on_atoms.mutable_data_ptr<scalar_t>());
        sum_outer(images.const_data_ptr<int>(), g, edges, 1.0, on_cell.mutable_data_ptr<scalar_t>(), grad, stream);
    });
    return {on_atoms, on_cell};
}

Tensor edge_virial_cuda(const Tensor &vectors, const Tensor &gradient) {
    check_virial(vectors, gradient);
    const c10::cuda::CUDAGuard guard(vectors.device());
    const Tensor r = vectors.contiguous(), g = gradient.contiguous(), virial = at::empty({3, 3}, vectors.options());
    AT_DISPATCH_FLOATING_TYPES(r.scalar_type(), "edge_virial_cuda", [&] {
        sum_outer(r.const_data_ptr<scalar_t>(), g.const_data_ptr<scalar_t>(), r.size(0), -1.0,
                  virial.mutable_data_ptr<scalar_t>(), r, c10::cuda::getCurrentCUDAStream());
    });
    return virial;
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, CUDA, m) {
    m.impl("edge_virial", edge_virial_cuda);
    m.impl("edge_vectors", edge_vectors_cuda);
    m.impl("edge_vectors_backward", edge_vectors_backward_cuda);
}

} // namespace equistride
