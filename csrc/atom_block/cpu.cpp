// The blocks on the CPU: a dozen atoms at a time, which share what is read of the matrices.
#include "atom_block/atom_block.h"
#include "atom_block/chunks.h"
#include "atom_block/weights.h"
#include "edges.h"
#include "instruction_set.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <algorithm>

namespace equistride {

template <class Real> const AtomKernels<Real> &choose_atom_kernels() {
    return for_this_processor(atom_kernels<Real, InstructionSet::portable>, atom_kernels<Real, InstructionSet::avx2>,
                              atom_kernels<Real, InstructionSet::avx512>)();
}
template const AtomKernels<float> &choose_atom_kernels();
template const AtomKernels<double> &choose_atom_kernels();

namespace {

template <class Real> class Block {
public:
    Block(const AtomShape &shape, const Tensor &weights, double eps)
        : shape_(shape), kernels_(choose_atom_kernels<Real>()), multiply_(choose_edge_kernels<Real>().multiply),
          weights_(shape, weights.const_data_ptr<Real>(), eps), width_(shape.size * shape.channels),
          rows_(shape.size * shape.hidden) {}

    // x and messages [count, size, channels] to out.
    void forward(const Real *x, const Real *messages, int64_t count, Real *out) const {
        Scratch own(*this);
        between(x, messages, count, out, own);
        for (int64_t k = 0; k < count; ++k)
            kernels_.gate(shape_, own.inner.data() + k * inner(), own.rows.data() + k * rows_);
        apply(weights_.down, count, own.rows.data(), rows_, own.normed.data(), width_);
        kernels_.add(out, own.normed.data(), count * width_, out);
    }

    void backward(const Real *x, const Real *messages, const Real *grad, int64_t count, Real *on_x) const {
        Scratch own(*this);
        between(x, messages, count, own.features.data(), own);
        apply(weights_.down_back, count, grad, width_, own.rows.data(), rows_);
        for (int64_t k = 0; k < count; ++k)
            kernels_.ungate(shape_, own.inner.data() + k * inner(), own.rows.data() + k * rows_,
                            own.on_inner.data() + k * inner());
        apply(weights_.up_back, count, own.on_inner.data(), inner(), own.normed.data(), width_);
        std::copy_n(grad, count * width_, on_x);
        for (int64_t k = 0; k < count; ++k)
            kernels_.norm_back(shape_, weights_.norm, own.features.data() + k * width_, own.normed.data() + k * width_,
                               own.scalars.data(), on_x + k * width_);
    }

private:
    const AtomShape &shape_;
    const AtomKernels<Real> &kernels_;
    void (*const multiply_)(const Multiply<Real> &);
    const AtomWeights<Real> weights_;
    const int64_t width_, rows_; // numbers an atom: features, rows between the layers

    int64_t inner() const { return shape_.gates + rows_; }

    struct Scratch {
        Buffer<Real> features, normed, inner, on_inner, rows, scalars;
        explicit Scratch(const Block &block)
            : features(CHUNK * block.width_), normed(CHUNK * block.width_), inner(CHUNK * block.inner()),
              on_inner(CHUNK * block.inner()), rows(CHUNK * block.rows_), scalars(block.shape_.channels) {}
    };

    // x + messages, and what lies between the layers.
    void between(const Real *x, const Real *messages, int64_t count, Real *features, Scratch &own) const {
        kernels_.add(x, messages, count * width_, features);
        for (int64_t k = 0; k < count; ++k)
            kernels_.norm(shape_, weights_.norm, features + k * width_, own.normed.data() + k * width_);
        apply(weights_.up, count, own.normed.data(), width_, own.inner.data(), inner());
    }

    // Row by row of all atoms.
    void apply(const AtomLayer<Real> &layer, int64_t count, const Real *x, int64_t x_stride, Real *y,
               int64_t y_stride) const {
        for (int64_t l = 0; l <= shape_.l_max; ++l)
            for (int64_t row = l * l; row < (l + 1) * (l + 1); ++row)
                multiply_({.a = x + (row == 0 ? 0 : layer.gates_in + row * layer.in),
                           .lda = x_stride,
                           .rows = count,
                           .b = layer.matrix(l),
                           .k = layer.in + (row == 0 ? layer.gates_in : 0),
                           .n = layer.out + (row == 0 ? layer.gates_out : 0),
                           .c = y + (row == 0 ? 0 : layer.gates_out + row * layer.out),
                           .ldc = y_stride,
                           .bias = row == 0 ? layer.bias : nullptr});
    }
};

template <class Body> Tensor atom_block_any(const AtomBlock &in, double passes, Body &&body) {
    const AtomShape shape = in.shape();
    check_atom_block(in, shape);
    const Tensor x = in.x.contiguous(), messages = in.messages.contiguous(), weights = in.weights.contiguous(),
                 out = at::empty(x.sizes(), x.options());
    const int64_t width = shape.size * shape.channels;
    // each row of degree l is multiplied with a matrix of which there is one a degree
    const double work = passes * double(x.size(0)) * double(weights.numel()) * double(shape.l_max + 1);
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "atom_block", [&] {
        const Block<scalar_t> block(shape, weights, in.eps);
        chunks(x.size(0), work, [&](int64_t k, int64_t count) {
            body(block, x.const_data_ptr<scalar_t>() + k * width, messages.const_data_ptr<scalar_t>() + k * width,
                 k * width, count, out.mutable_data_ptr<scalar_t>() + k * width);
        });
    });
    return out;
}

template <class Body> Tensor spherical_norm_any(const SphericalNorm &in, Body &&body) {
    const AtomShape shape = checked_shape(in);
    const Tensor x = in.x.contiguous(), weight = in.weight.contiguous(), bias = in.bias.contiguous(),
                 balance = in.balance.contiguous(), out = at::empty(x.sizes(), x.options());
    const int64_t width = shape.size * shape.channels;
    AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "spherical_norm", [&] {
        const auto data = [](const Tensor &tensor) { return tensor.const_data_ptr<scalar_t>(); };
        const RowNorm<scalar_t> norm{data(weight), data(bias), data(balance), scalar_t(in.eps)};
        chunks(x.size(0), double(x.numel()) * MOVE, [&](int64_t k, int64_t count) {
            for (const int64_t end = k + count; k < end; ++k)
                body(choose_atom_kernels<scalar_t>(), shape, norm, data(x) + k * width, k * width,
                     out.mutable_data_ptr<scalar_t>() + k * width);
        });
    });
    return out;
}

} // namespace

Tensor spherical_norm_cpu(const SphericalNorm &in) {
    return spherical_norm_any(in, []<class Real>(const AtomKernels<Real> &kernels, const AtomShape &shape,
                                                 const RowNorm<Real> &norm, const Real *x, int64_t,
                                                 Real *out) { kernels.norm(shape, norm, x, out); });
}

Tensor spherical_norm_backward_cpu(const Tensor &grad, const SphericalNorm &in) {
    check_grad_of_atoms(grad, in.x);
    const Tensor dense = grad.contiguous();
    return spherical_norm_any(in, [&]<class Real>(const AtomKernels<Real> &kernels, const AtomShape &shape,
                                                  const RowNorm<Real> &norm, const Real *x, int64_t at, Real *out) {
        Buffer<Real> scalars(shape.channels);
        std::fill_n(out, shape.size * shape.channels, Real(0));
        kernels.norm_back(shape, norm, x, dense.const_data_ptr<Real>() + at, scalars.data(), out);
    });
}

Tensor atom_block_cpu(const AtomBlock &in) {
    return atom_block_any(in, 2,
                          []<class Real>(const Block<Real> &block, const Real *x, const Real *messages, int64_t,
                                         int64_t count, Real *out) { block.forward(x, messages, count, out); });
}

Tensor atom_block_backward_cpu(const Tensor &grad, const AtomBlock &in) {
    check_grad_of_atoms(grad, in.x);
    const Tensor dense = grad.contiguous();
    return atom_block_any(
        in, 3,
        [&]<class Real>(const Block<Real> &block, const Real *x, const Real *messages, int64_t at, int64_t count,
                        Real *out) { block.backward(x, messages, dense.const_data_ptr<Real>() + at, count, out); });
}

} // namespace equistride
