// The contraction on the GPU: a block an atom and a slot of channels, a thread a channel; factors lie in shared memory,
// where an index that is known at run time costs nothing. No atomic operation, every sum in one order.
//
// What bounds it, for 16 rows of 128 channels in float32 with outputs of degree 0 and 1 (410 terms), an atom: 210 kB of
// the table are read from L2 (all blocks of one element read the same), 10 kB of x and the output from memory; 52,000
// multiply-adds and three times as many products. At 5 TB/s of L2 that is 40 ns an atom and multiprocessor group, the
// arithmetic at 60 TFLOP/s 4 ns: the table decides. The convolution before it moves 20 times as much.
#include "checks.h"
#include "cuda_edges.h"
#include "symmetric_contraction/symmetric_contraction.h"

#include <ATen/Dispatch.h>

namespace equistride {

namespace {

template <class Real> struct ContractionProblem {
    const Real *x, *table, *grad;
    const int64_t *species;
    const Monomial *terms;
    const int *wrong;
    int64_t atoms, elements, term_count, rows, inputs, outputs, channels;
};

// Whether every term names rows that are there, and every atom an element, which a kernel cannot raise.
template <class Real> __global__ void check_terms(ContractionProblem<Real> in, int *wrong) {
    const int64_t k = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (k < in.atoms && (in.species[k] < 0 || in.species[k] >= in.elements))
        *wrong = 1; // every writer writes the same
    if (k >= in.term_count || in.terms[k].row == -1)
        return;
    const Monomial term = in.terms[k];
    bool fits = term.out >= 0 && term.out < in.outputs && term.row >= 0 && term.row < in.rows && term.factors[0] >= 0;
    for (int f = 0; f < MAX_FACTORS; ++f)
        fits = fits && term.factors[f] >= -1 && term.factors[f] < in.inputs;
    if (!fits)
        *wrong = 1;
}

// Where this thread's channel lies: -1 beyond the last.
template <class Real> __device__ int64_t channel_of(const ContractionProblem<Real> &in) {
    const int64_t channel = int64_t(blockIdx.y) * blockDim.x + threadIdx.x;
    return channel < in.channels ? channel : -1;
}

template <class Real> __global__ void contract(ContractionProblem<Real> in, Real *out) {
    Real *const x = shared_memory<Real>();
    const int64_t n = blockIdx.x, c = channel_of(in), width = blockDim.x;
    if (c < 0)
        return;
    Real *const to = out + n * in.outputs * in.channels + c;
    if (*in.wrong != 0) {
        for (int64_t o = 0; o < in.outputs; ++o)
            to[o * in.channels] = not_a_number<Real>();
        return;
    }
    for (int64_t i = 0; i < in.inputs; ++i)
        x[i * width + threadIdx.x] = in.x[(n * in.inputs + i) * in.channels + c];
    const Real *table = in.table + in.species[n] * in.rows * in.channels + c;
    Real sum = 0;
    for (int64_t t = 0; t < in.term_count; ++t) {
        const Monomial term = in.terms[t];
        if (term.row >= 0) {
            Real product = table[term.row * in.channels];
            for (int f = 0; f < MAX_FACTORS && term.factors[f] >= 0; ++f)
                product *= x[term.factors[f] * width + threadIdx.x];
            sum += product;
        }
        if (t + 1 == in.term_count || in.terms[t + 1].out != term.out) {
            to[term.out * in.channels] += sum;
            sum = 0;
        }
    }
}

template <class Real> __global__ void contract_backward(ContractionProblem<Real> in, Real *on_x) {
    Real *const x = shared_memory<Real>();
    const int64_t n = blockIdx.x, c = channel_of(in), width = blockDim.x;
    if (c < 0)
        return;
    Real *const share = x + in.inputs * width, *const to = on_x + n * in.inputs * in.channels + c;
    for (int64_t i = 0; i < in.inputs; ++i) {
        x[i * width + threadIdx.x] = in.x[(n * in.inputs + i) * in.channels + c];
        share[i * width + threadIdx.x] = *in.wrong != 0 ? not_a_number<Real>() : Real(0);
    }
    const Real *table = in.table + in.species[n] * in.rows * in.channels + c;
    for (int64_t t = 0; *in.wrong == 0 && t < in.term_count; ++t) {
        const Monomial term = in.terms[t];
        if (term.row < 0)
            continue;
        const Real outer = table[term.row * in.channels] * in.grad[(n * in.outputs + term.out) * in.channels + c];
        for (int f = 0; f < MAX_FACTORS && term.factors[f] >= 0; ++f) {
            Real product = outer;
            for (int other = 0; other < MAX_FACTORS && term.factors[other] >= 0; ++other)
                if (other != f)
                    product *= x[term.factors[other] * width + threadIdx.x];
            share[term.factors[f] * width + threadIdx.x] += product;
        }
    }
    for (int64_t i = 0; i < in.inputs; ++i)
        to[i * in.channels] = share[i * width + threadIdx.x];
}

// A block takes an element, a slot of channels and every so many-th row of the table, whose terms may be several.
template <class Real> __global__ void contract_backward_table(ContractionProblem<Real> in, Real *on_table) {
    const int64_t parts = gridDim.x / in.elements, z = blockIdx.x / parts, part = blockIdx.x % parts,
                  c = channel_of(in);
    if (c < 0)
        return;
    Real *const to = on_table + z * in.rows * in.channels + c;
    if (*in.wrong != 0) {
        for (int64_t row = 0; row < in.rows; ++row)
            to[row * in.channels] = not_a_number<Real>();
        return;
    }
    for (int64_t t = 0; t < in.term_count; ++t) {
        const Monomial term = in.terms[t];
        if (term.row < 0 || term.row % parts != part)
            continue;
        Real sum = 0;
        for (int64_t n = 0; n < in.atoms; ++n) {
            if (in.species[n] != z)
                continue;
            Real product = in.grad[(n * in.outputs + term.out) * in.channels + c];
            for (int f = 0; f < MAX_FACTORS && term.factors[f] >= 0; ++f)
                product *= in.x[(n * in.inputs + term.factors[f]) * in.channels + c];
            sum += product;
        }
        to[term.row * in.channels] += sum;
    }
}

struct ContractionArguments {
    Tensor x, table, species, terms, grad, wrong; // dense

    ContractionArguments(const Tensor &x, const Tensor &table, const Tensor &species, const Tensor &terms,
                         const Tensor &grad)
        : x(x.contiguous()), table(table.contiguous()), species(species.contiguous()), terms(terms.contiguous()),
          grad(grad.defined() ? grad.contiguous() : grad), wrong(at::zeros({1}, x.options().dtype(at::kInt))) {}

    template <class Real> ContractionProblem<Real> arrange(int64_t outputs, cudaStream_t stream) {
        const int64_t channels = table.size(2);
        const ContractionProblem<Real> in{x.const_data_ptr<Real>(),
                                          table.const_data_ptr<Real>(),
                                          grad.defined() ? grad.const_data_ptr<Real>() : nullptr,
                                          species.const_data_ptr<int64_t>(),
                                          reinterpret_cast<const Monomial *>(terms.const_data_ptr<int32_t>()),
                                          wrong.const_data_ptr<int>(),
                                          x.size(0),
                                          table.size(0),
                                          terms.size(0),
                                          table.size(1),
                                          x.size(1) / channels,
                                          outputs,
                                          channels};
        launch(check_terms<Real>, blocks_of(std::max(in.atoms, in.term_count) + 1), THREADS, stream, in,
               wrong.mutable_data_ptr<int>());
        return in;
    }
};

// Channels that a block takes: fewer where their factors would not fit into its shared memory.
template <class Real> int threads_of(const ContractionProblem<Real> &in, int64_t rows) {
    int threads = int(std::min<int64_t>(THREADS, (in.channels + WARP - 1) / WARP * WARP));
    while (threads > WARP && rows * threads * int64_t(sizeof(Real)) > shared_memory_limit())
        threads -= WARP;
    return threads;
}

template <class Real>
void launch_rows(void (*kernel)(ContractionProblem<Real>, Real *), const ContractionProblem<Real> &in, int64_t rows,
                 Real *out, cudaStream_t stream) {
    const int threads = threads_of(in, rows);
    const dim3 grid(unsigned(in.atoms), unsigned((in.channels + threads - 1) / threads));
    if (in.atoms > 0)
        launch_with_memory(kernel, rows * threads * int64_t(sizeof(Real)), grid, dim3(threads), stream, in, out);
}

Tensor symmetric_contraction_cuda(const Tensor &x, const Tensor &table, const Tensor &species, const Tensor &terms,
                                  int64_t outputs) {
    check_contraction(x, table, species, terms, outputs);
    const c10::cuda::CUDAGuard guard(x.device());
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    ContractionArguments arguments(x, table, species, terms, Tensor());
    return AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "symmetric_contraction_cuda", [&] {
        const auto in = arguments.arrange<scalar_t>(outputs, stream);
        const Tensor out = at::zeros({x.size(0), outputs * in.channels}, x.options());
        launch_rows<scalar_t>(contract<scalar_t>, in, in.inputs, out.mutable_data_ptr<scalar_t>(), stream);
        return out;
    });
}

ContractionGradients symmetric_contraction_backward_cuda(const Tensor &grad, const Tensor &x, const Tensor &table,
                                                         const Tensor &species, const Tensor &terms,
                                                         std::array<bool, 2> wanted) {
    check_contraction(x, table, species, terms, 1);
    check_contraction_grad(grad, x, table);
    const c10::cuda::CUDAGuard guard(x.device());
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    ContractionArguments arguments(x, table, species, terms, grad);
    return AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "symmetric_contraction_backward_cuda", [&] {
        const auto in = arguments.arrange<scalar_t>(grad.size(1) / table.size(2), stream);
        const Tensor on_x = memory_like(x, wanted[0]), on_table = memory_like(table, wanted[1], /*clear=*/true);
        if (wanted[0])
            launch_rows<scalar_t>(contract_backward<scalar_t>, in, 2 * in.inputs, on_x.mutable_data_ptr<scalar_t>(),
                                  stream);
        if (wanted[1] && in.elements > 0)
            launch(contract_backward_table<scalar_t>,
                   dim3(unsigned(in.elements * std::clamp<int64_t>(in.rows, 1, 1024)),
                        unsigned((in.channels + THREADS - 1) / THREADS)),
                   THREADS, stream, in, on_table.mutable_data_ptr<scalar_t>());
        return ContractionGradients(on_x, on_table);
    });
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, CUDA, m) {
    m.impl("symmetric_contraction", symmetric_contraction_cuda);
    m.impl("symmetric_contraction_backward", symmetric_contraction_backward_cuda);
}

} // namespace equistride
