// Lengths and first features on the GPU: a launch each, and one backward; no atomic operation, every sum in one order.
#include "cuda_edges.h"
#include "edge_block/bonds.h"
#include "edge_block/rotation_kernels.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>

namespace equistride {

namespace {

// A thread a bond. `out` null: the lengths and envelopes; else the gradient to the vectors, of theirs.
template <class Real>
__global__ void take_bonds(const Real *vectors, int64_t edges, const Envelope<Real> envelope, Real *lengths,
                           Real *envelopes, const Real *on_lengths, const Real *on_envelopes, Real *out) {
    const int64_t e = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (e >= edges)
        return;
    const Real *const v = vectors + 3 * e;
    const Real r = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    if (out == nullptr) {
        lengths[e] = r;
        envelopes[e] = envelope.value(r);
        return;
    }
    const Real g = on_lengths[e] + on_envelopes[e] * envelope.slope(r);
    for (int k = 0; k < 3; ++k)
        out[3 * e + k] = r > 0 ? g / r * v[k] : Real(0);
}

template <class Real>
void launch_bonds(const Tensor &vectors, double cutoff, int64_t exponent, Real *lengths, Real *envelopes,
                  const Real *on_lengths, const Real *on_envelopes, Real *out) {
    const c10::cuda::CUDAGuard guard(vectors.device());
    if (vectors.size(0) > 0)
        launch(take_bonds<Real>, blocks_of(vectors.size(0)), THREADS, c10::cuda::getCurrentCUDAStream(),
               vectors.const_data_ptr<Real>(), vectors.size(0), Envelope<Real>{Real(cutoff), Real(exponent), exponent},
               lengths, envelopes, on_lengths, on_envelopes, out);
}

std::tuple<Tensor, Tensor> bond_lengths_cuda(const Tensor &vectors, double cutoff, int64_t exponent) {
    const auto out = bond_lengths_any(vectors, cutoff, exponent);
    const Tensor from = vectors.contiguous();
    AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "bond_lengths_cuda", [&] {
        const auto data = [](const Tensor &tensor) { return tensor.mutable_data_ptr<scalar_t>(); };
        launch_bonds<scalar_t>(from, cutoff, exponent, data(std::get<0>(out)), data(std::get<1>(out)), nullptr, nullptr,
                               nullptr);
    });
    return out;
}

Tensor bond_lengths_backward_cuda(const Tensor &on_lengths, const Tensor &on_envelope, const Tensor &vectors,
                                  double cutoff, int64_t exponent) {
    const Tensor out = bond_lengths_backward_any(on_lengths, on_envelope, vectors, cutoff, exponent),
                 of_lengths = on_lengths.contiguous(), of_envelope = on_envelope.contiguous(),
                 from = vectors.contiguous();
    AT_DISPATCH_FLOATING_TYPES(vectors.scalar_type(), "bond_lengths_backward_cuda", [&] {
        launch_bonds<scalar_t>(from, cutoff, exponent, nullptr, nullptr, of_lengths.const_data_ptr<scalar_t>(),
                               of_envelope.const_data_ptr<scalar_t>(), out.mutable_data_ptr<scalar_t>());
    });
    return out;
}

template <class Real> struct Degree {
    Shape shape;
    const Real *scalars, *vectors, *frames, *envelope, *radial, *grad;
    const int64_t *first, *receiver; // of each receiver's edges, and the end; of each edge
    const int *wrong;
    int64_t edges;
    Real scale;
};

// A block a receiver, a thread a degree and channel.
template <class Real>
__global__ void __launch_bounds__(THREADS) sum_degree(const __grid_constant__ Degree<Real> in, Real *out) {
    const Shape &shape = in.shape;
    const int channels = int(shape.channels), columns = (shape.l_max + 1) * channels;
    const int64_t t = blockIdx.x;
    for (int p = threadIdx.x; p < columns; p += THREADS)
        each_degree(shape, [&](auto l) {
            const int c = p - l * channels;
            if (c < 0 || c >= channels)
                return;
            Real sum[2 * l + 1] = {};
            for (int64_t e = in.first[t]; e < in.first[t + 1]; ++e)
                add_column<l>(in.frames + e * shape.frame_size + shape.frame[l], l,
                              in.scale * in.envelope[e] * in.radial[e * columns + p], sum);
            if (l == 0)
                sum[0] += in.scalars[t * channels + c];
            each<2 * l + 1>([&](auto k) {
                out[(t * shape.size + l * l + k) * channels + c] = *in.wrong != 0 ? not_a_number<Real>() : sum[k];
            });
        });
}

// A warp an edge.
template <class Real>
__global__ void __launch_bounds__(THREADS)
    unsum_degree(const __grid_constant__ Degree<Real> in, Real *on_vectors, Real *on_envelope, Real *on_radial) {
    const Shape &shape = in.shape;
    const int64_t e = (int64_t(blockIdx.x) * THREADS + threadIdx.x) / WARP,
                  columns = (shape.l_max + 1) * shape.channels;
    if (e >= in.edges)
        return;
    Real torque[3] = {};
    const bool right = *in.wrong == 0;
    const Real on_factor =
        unrotate_edge(shape, in.frames + e * shape.frame_size, right ? in.scale * in.envelope[e] : not_a_number<Real>(),
                      in.grad + (right ? in.receiver[e] : 0) * shape.size * shape.channels, in.radial + e * columns,
                      on_radial + e * columns, torque);
    if (threadIdx.x % WARP != 0)
        return;
    on_envelope[e] = right ? in.scale * on_factor : not_a_number<Real>();
    turn_bond(in.vectors + 3 * e, torque, on_vectors + 3 * e);
}

// Calls call(the arguments as the kernels read them, stream), where there is an atom.
template <class F> void with_degree(const EdgeDegree &in, const Tensor *grad, F &&call) {
    const c10::cuda::CUDAGuard guard(in.scalars.device());
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    const int64_t atoms = in.scalars.size(0);
    const Tensor scalars = in.scalars.contiguous(), vectors = in.vectors.contiguous(), frames = in.frames.contiguous(),
                 envelope = in.envelope.contiguous(), radial = in.radial.contiguous(),
                 index = in.edge_index.contiguous(), from = grad == nullptr ? scalars : grad->contiguous();
    const auto edges = owned_edges(index, atoms, atoms, /*by_sender=*/false, stream);
    AT_DISPATCH_FLOATING_TYPES(scalars.scalar_type(), "edge_degree_cuda", [&] {
        const auto data = [](const Tensor &tensor) { return tensor.const_data_ptr<scalar_t>(); };
        call(Degree<scalar_t>{in.shape(), data(scalars), data(vectors), data(frames), data(envelope), data(radial),
                              data(from), edges->first.const_data_ptr<int64_t>(), index.const_data_ptr<int64_t>(),
                              edges->wrong.const_data_ptr<int>(), index.size(1), scalar_t(in.scale)},
             stream);
    });
}

Tensor edge_degree_cuda(const EdgeDegree &in) {
    const Tensor out = edge_degree_any(in);
    if (in.scalars.size(0) > 0)
        with_degree(in, nullptr, [&]<class Real>(const Degree<Real> &degree, cudaStream_t stream) {
            launch(sum_degree<Real>, unsigned(in.scalars.size(0)), THREADS, stream, degree,
                   out.mutable_data_ptr<Real>());
        });
    return out;
}

DegreeGradients edge_degree_backward_cuda(const Tensor &grad, const EdgeDegree &in) {
    const auto out = edge_degree_backward_any(grad, in);
    if (in.scalars.size(0) > 0 && in.edge_index.size(1) > 0)
        with_degree(in, &grad, [&]<class Real>(const Degree<Real> &degree, cudaStream_t stream) {
            const auto &[on_vectors, on_envelope, on_radial] = out;
            launch(unsum_degree<Real>, blocks_of(degree.edges * WARP), THREADS, stream, degree,
                   on_vectors.template mutable_data_ptr<Real>(), on_envelope.template mutable_data_ptr<Real>(),
                   on_radial.template mutable_data_ptr<Real>());
        });
    return out;
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, CUDA, m) {
    implement_bonds<bond_lengths_cuda, bond_lengths_backward_cuda, edge_degree_cuda, edge_degree_backward_cuda>(m);
}

} // namespace equistride
