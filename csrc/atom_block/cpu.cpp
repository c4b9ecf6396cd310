// The blocks on the CPU: a dozen atoms at a time, which share what is read of the matrices.
#include "atom_block/atom_block.h"
#include "edge_block/kernels.h"
#include "edge_block/panels.h"
#include "edges.h"
#include "instruction_set.h"
#include "threads.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <algorithm>

namespace equistride {

namespace {

constexpr int64_t CHUNK = 12; // atoms: one tile of rows

template <class Real> const AtomKernels<Real> &choose_atom_kernels() {
    return for_this_processor(atom_kernels<Real, InstructionSet::portable>, atom_kernels<Real, InstructionSet::avx2>,
                              atom_kernels<Real, InstructionSet::avx512>)();
}

// One linear map of the channels of each degree, and backward.
template <class Real> struct Layer {
    int64_t in, out, gates; // channels; of the first row, more results before the others
    std::vector<const Real *> matrices;
    const Real *bias = nullptr;
};

// The parts of `weights` in their order: see atom_block_pack.
template <class Real> struct Weights {
    RowNorm<Real> norm;
    Layer<Real> up, down, up_back, down_back;

    Weights(const AtomShape &shape, const Tensor &packed, double eps) : next_(packed.const_data_ptr<Real>()) {
        const int64_t c = shape.channels, h = shape.hidden;
        const auto plain = [this](int64_t count) { return std::exchange(next_, next_ + count); };
        const Real *const weight = plain(shape.size * c), *const bias = plain(c), *const balance = plain(shape.size);
        norm = {weight, bias, balance, Real(eps)};
        up = layer(shape, c, h, shape.gates, true);
        down = layer(shape, h, c, 0, true);
        up_back = layer(shape, h, c, shape.gates, false);
        down_back = layer(shape, c, h, 0, false);
    }

private:
    const Real *next_;

    const Real *panels(int64_t rows, int64_t columns) { return std::exchange(next_, next_ + rows * padded(columns)); }
    Layer<Real> layer(const AtomShape &shape, int64_t in, int64_t out, int64_t gates, bool forward) {
        Layer<Real> made{in, out, gates, {}};
        for (int64_t l = 0; l <= shape.l_max; ++l) {
            const int64_t more = l == 0 ? gates : 0;
            made.matrices.push_back(panels(in + (forward ? 0 : more), out + (forward ? more : 0)));
        }
        if (forward)
            made.bias = panels(1, out + gates);
        return made;
    }
};

template <class Real> class Block {
public:
    Block(const AtomShape &shape, const Tensor &weights, double eps)
        : shape_(shape), kernels_(choose_atom_kernels<Real>()), multiply_(choose_edge_kernels<Real>().multiply),
          weights_(shape, weights, eps), width_(shape.size * shape.channels), rows_(shape.size * shape.hidden) {}

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
    const Weights<Real> weights_;
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

    // Row by row of all atoms; of the first, gates are on the side that has a bias, and go in on the other.
    void apply(const Layer<Real> &layer, int64_t count, const Real *x, int64_t x_stride, Real *y,
               int64_t y_stride) const {
        const bool forward = layer.bias != nullptr;
        const int64_t into = forward ? layer.gates : 0, from = forward ? 0 : layer.gates;
        for (int64_t l = 0; l <= shape_.l_max; ++l)
            for (int64_t row = l * l; row < (l + 1) * (l + 1); ++row)
                multiply_({.a = x + (row == 0 ? 0 : from + row * layer.in),
                           .lda = x_stride,
                           .rows = count,
                           .b = layer.matrices[size_t(l)],
                           .k = layer.in + (row == 0 ? from : 0),
                           .n = layer.out + (row == 0 ? into : 0),
                           .c = y + (row == 0 ? 0 : into + row * layer.out),
                           .ldc = y_stride,
                           .bias = row == 0 ? layer.bias : nullptr});
    }
};

// Calls f(first atom, count) for chunks of the atoms.
template <class F> void chunks(int64_t atoms, double work, F &&f) {
    const Threads threads(work);
    threads.share(0, atoms, [&](int64_t begin, int64_t end) {
        for (; begin < end; begin += CHUNK)
            f(begin, std::min(CHUNK, end - begin));
    });
}

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
