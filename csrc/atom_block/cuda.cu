// The norm and the block on the GPU: a launch each, and one backward; no atomic operation, every sum in one order,
// nothing kept, no waiting for the host.
//
// What bounds the block, for l <= 2 and 64 channels in float32, an atom: 164 kFLOP of products forward and 254 kFLOP
// backward, three times as many where tensor cores get split factors; 7 kB of features from memory and back forward,
// 9 kB backward, which are read once more from L2. A tile of 16 atoms reads 330 kB of matrices (510 kB backward) from
// L2, less where rows of one degree meet in L1. 83 kB of shared memory a tile, so that a multiprocessor has two; going
// back 89 kB for 12 atoms. These are calculations; nothing here has been timed yet.
#include "atom_block/atom_block.h"
#include "atom_block/tile_kernel.h"
#include "edge_block/arguments.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <algorithm>

namespace equistride {

namespace {

Tensor norm_any(const SphericalNorm &in, const Tensor *grad) {
    const AtomShape shape = checked_shape(in);
    const c10::cuda::CUDAGuard guard(in.x.device());
    const Tensor x = in.x.contiguous(), weight = in.weight.contiguous(), bias = in.bias.contiguous(),
                 balance = in.balance.contiguous(), from = grad == nullptr ? x : grad->contiguous(),
                 out = at::empty(x.sizes(), x.options());
    if (x.size(0) > 0)
        AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "spherical_norm_cuda", [&] {
            const auto data = [](const Tensor &tensor) { return tensor.const_data_ptr<scalar_t>(); };
            launch(norm_atoms<scalar_t>, blocks_of(x.size(0) * WARP), THREADS, c10::cuda::getCurrentCUDAStream(), shape,
                   RowNorm<scalar_t>{data(weight), data(bias), data(balance), scalar_t(in.eps)}, data(x),
                   grad == nullptr ? nullptr : data(from), x.size(0), out.mutable_data_ptr<scalar_t>());
        });
    return out;
}
Tensor spherical_norm_cuda(const SphericalNorm &in) { return norm_any(in, nullptr); }
Tensor spherical_norm_backward_cuda(const Tensor &grad, const SphericalNorm &in) {
    check_grad_of_atoms(grad, in.x);
    return norm_any(in, &grad);
}

template <class Real> struct AtomKernel {
    void (*run)(AtomProblem<Real>);
    int atoms;
    bool shared; // whether a tile lies in shared memory
};
template <class How, bool SHARED = true> constexpr AtomKernel<typename How::Real> kernel_of() {
    return {run_atoms<How, SHARED>, How::EDGES, SHARED};
}
// For tiles of four times ROWS atoms: the most of which two fit into a multiprocessor, or else one; or none.
template <class Real, template <int> class How> AtomKernel<Real> kernel_that_fits(const AtomLayout &layout) {
    constexpr int64_t OF_SYSTEM = 1024; // bytes a block
    for (const int64_t blocks : {2, 1})
        for (const auto &kernel : {kernel_of<How<4>>(), kernel_of<How<3>>(), kernel_of<How<2>>()})
            if (kernel.atoms * int64_t(layout.atom) * int64_t(sizeof(Real)) <=
                (shared_memory_limit() - (blocks - 1) * OF_SYSTEM) / blocks)
                return kernel;
    return kernel_of<How<4>, false>();
}
template <int ROWS> using Fma32 = Fma<float, ROWS>;
template <int ROWS> using Fma64 = Fma<double, (ROWS + 1) / 2>; // a lane has fewer registers for them
template <int ROWS> using Split = TensorCores<Arithmetic::split, ROWS>;

// float32 is split also where torch may round to TF32: this is a small part of a step.
template <class Real> AtomKernel<Real> choose_kernel(const AtomLayout &layout) {
    if constexpr (sizeof(Real) == 8)
        return kernel_that_fits<double, Fma64>(layout);
    else
        return arithmetic_of(at::kFloat) == Arithmetic::fma ? kernel_that_fits<float, Fma32>(layout)
                                                            : kernel_that_fits<float, Split>(layout);
}

Tensor block_any(const AtomBlock &in, const Tensor *grad) {
    const AtomShape shape = in.shape();
    check_atom_block(in, shape);
    const c10::cuda::CUDAGuard guard(in.x.device());
    const Tensor x = in.x.contiguous(), messages = in.messages.contiguous(), weights = dense(in.weights),
                 from = grad == nullptr ? x : grad->contiguous(), out = at::empty(x.sizes(), x.options());
    const int64_t atoms = x.size(0);
    if (atoms == 0)
        return out;
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "atom_block_cuda", [&] {
        const auto data = [](const Tensor &tensor) { return tensor.const_data_ptr<scalar_t>(); };
        const AtomLayout layout(shape, grad != nullptr, sizeof(scalar_t));
        const auto kernel = choose_kernel<scalar_t>(layout);
        const int64_t tiles = (atoms + kernel.atoms - 1) / kernel.atoms, numbers = kernel.atoms * int64_t(layout.atom),
                      blocks = kernel.shared ? tiles : std::min<int64_t>(tiles, 2 * multiprocessors());
        const Tensor memory = at::empty({kernel.shared ? 0 : blocks * numbers}, x.options());
        launch_with_memory(kernel.run, kernel.shared ? numbers * int64_t(sizeof(scalar_t)) : 0, dim3(unsigned(blocks)),
                           TILE_THREADS, c10::cuda::getCurrentCUDAStream(),
                           AtomProblem<scalar_t>{shape,
                                                 layout,
                                                 {shape, data(weights), in.eps},
                                                 data(x),
                                                 data(messages),
                                                 grad == nullptr ? nullptr : data(from),
                                                 out.mutable_data_ptr<scalar_t>(),
                                                 atoms,
                                                 data(weights),
                                                 nullptr,
                                                 memory.mutable_data_ptr<scalar_t>()});
    });
    return out;
}
Tensor atom_block_cuda(const AtomBlock &in) { return block_any(in, nullptr); }
Tensor atom_block_backward_cuda(const Tensor &grad, const AtomBlock &in) {
    check_grad_of_atoms(grad, in.x);
    return block_any(in, &grad);
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, CUDA, m) {
    implement_atom_block<spherical_norm_cuda, spherical_norm_backward_cuda, atom_block_cuda, atom_block_backward_cuda>(
        m);
}

} // namespace equistride
