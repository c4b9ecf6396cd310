// Atomic energies of the last features: the norm, and a network of three layers with SiLU between on its scalars.
#include "atom_block/head.h"
#include "atom_block/atom_block.h"
#include "atom_block/chunks.h"
#include "checks.h"
#include "edge_block/panels.h"
#include "edges.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

namespace equistride {

namespace {

// What the kernels read, in the order of Head.
Tensor energy_head_pack(const Tensor &norm_weight, const Tensor &norm_bias, const Tensor &balance,
                        at::TensorList layers) {
    TORCH_CHECK_VALUE(layers.size() == 6, "an energy head is weight and bias of three layers; found ", layers.size(),
                      " tensors");
    const c10::AutoGradMode frozen(false);
    std::vector<Tensor> parts;
    for (size_t k = 0; k < 6; k += 2) {
        parts.push_back(layers[k].t());
        parts.push_back(layers[k + 1].unsqueeze(0));
    }
    parts.insert(parts.end(), {layers[4], layers[2], layers[0]});
    return at::cat({norm_weight.flatten(), norm_bias, balance.flatten(), in_panels(parts)});
}

template <class Real> class Head {
public:
    Head(const EnergyHead &in, const AtomShape &shape)
        : shape_(shape), scalars_(1, shape.hidden, shape.hidden), kernels_(choose_atom_kernels<Real>()),
          multiply_(choose_edge_kernels<Real>().multiply), next_(in.weights.const_data_ptr<Real>()) {
        const int64_t c = shape.channels, h = shape.hidden;
        const auto plain = [this](int64_t count) { return std::exchange(next_, next_ + count); };
        const Real *const weight = plain(shape.size * c), *const bias = plain(c), *const balance = plain(shape.size);
        norm_ = {weight, bias, balance, Real(in.eps)};
        up_ = layer(c, h, true);
        across_ = layer(h, h, true);
        last_ = layer(h, 1, true);
        last_back_ = layer(1, h, false);
        across_back_ = layer(h, h, false);
        up_back_ = layer(h, c, false);
    }

    /// Numbers in the weights.
    static int64_t size(const AtomShape &shape) {
        const int64_t c = shape.channels, h = shape.hidden;
        return shape.size * c + c + shape.size + (c + 1 + 2 * h + 1 + 1) * padded(h) + (h + 1) * padded(1) +
               h * padded(c);
    }

    void forward(const Real *x, int64_t count, Real *out) const {
        Scratch own(*this);
        between(x, count, own);
        silu(own.second, count, own.open);
        apply(last_, count, own.open.data(), out, 1);
    }

    void backward(const Real *x, const Real *grad, int64_t count, Real *on_x) const {
        Scratch own(*this);
        between(x, count, own);
        apply(last_back_, count, grad, own.open.data(), shape_.hidden);
        unsilu(own.second, own.open, count, own.second);
        apply(across_back_, count, own.second.data(), own.open.data(), shape_.hidden);
        unsilu(own.first, own.open, count, own.first);
        std::fill_n(own.normed.data(), count * width(), Real(0));
        std::fill_n(on_x, count * width(), Real(0));
        apply(up_back_, count, own.first.data(), own.normed.data(), width());
        for (int64_t k = 0; k < count; ++k)
            kernels_.norm_back(shape_, norm_, x + k * width(), own.normed.data() + k * width(), own.scalars.data(),
                               on_x + k * width());
    }

private:
    struct Layer {
        const Real *matrix, *bias;
        int64_t in, out;
    };
    struct Scratch {
        Buffer<Real> normed, first, second, open, scalars; // first, second: before their SiLU
        explicit Scratch(const Head &head)
            : normed(CHUNK * head.width()), first(CHUNK * head.shape_.hidden), second(CHUNK * head.shape_.hidden),
              open(CHUNK * head.shape_.hidden), scalars(head.shape_.channels) {}
    };

    const AtomShape &shape_;
    const AtomShape scalars_; // for which the gate of a block is SiLU
    const AtomKernels<Real> &kernels_;
    void (*const multiply_)(const Multiply<Real> &);
    const Real *next_;
    RowNorm<Real> norm_{};
    Layer up_{}, across_{}, last_{}, last_back_{}, across_back_{}, up_back_{};

    int64_t width() const { return shape_.size * shape_.channels; }

    Layer layer(int64_t in, int64_t out, bool bias) {
        const Real *const matrix = std::exchange(next_, next_ + in * padded(out));
        return {matrix, bias ? std::exchange(next_, next_ + padded(out)) : nullptr, in, out};
    }

    void apply(const Layer &layer, int64_t count, const Real *x, Real *y, int64_t y_stride,
               int64_t x_stride = 0) const {
        multiply_({.a = x,
                   .lda = x_stride > 0 ? x_stride : layer.in,
                   .rows = count,
                   .b = layer.matrix,
                   .k = layer.in,
                   .n = layer.out,
                   .c = y,
                   .ldc = y_stride,
                   .bias = layer.bias});
    }
    void silu(Buffer<Real> &x, int64_t count, Buffer<Real> &y) const {
        for (int64_t k = 0; k < count * shape_.hidden; k += shape_.hidden)
            kernels_.gate(scalars_, x.data() + k, y.data() + k);
    }
    void unsilu(Buffer<Real> &x, Buffer<Real> &grad, int64_t count, Buffer<Real> &on_x) const {
        for (int64_t k = 0; k < count * shape_.hidden; k += shape_.hidden)
            kernels_.ungate(scalars_, x.data() + k, grad.data() + k, on_x.data() + k);
    }

    void between(const Real *x, int64_t count, Scratch &own) const {
        for (int64_t k = 0; k < count; ++k)
            kernels_.norm(shape_, norm_, x + k * width(), own.normed.data() + k * width());
        apply(up_, count, own.normed.data(), own.first.data(), shape_.hidden, width());
        silu(own.first, count, own.open);
        apply(across_, count, own.open.data(), own.second.data(), shape_.hidden);
    }
};

// Calls body(head, features, first atom, count) for chunks of the atoms.
template <class Body> void energy_head_any(const EnergyHead &in, double passes, Body &&body) {
    const AtomShape shape = shape_of(in.x, in.hidden_channels);
    AT_DISPATCH_FLOATING_TYPES(in.x.scalar_type(), "energy_head", [&] {
        check_shape("weights of the energy head", in.weights, in.x, {Head<scalar_t>::size(shape)});
        const Tensor x = in.x.contiguous(), weights = in.weights.contiguous();
        const Head<scalar_t> head({x, weights, in.hidden_channels, in.eps}, shape);
        const double work = passes * double(x.size(0)) * double(weights.numel());
        chunks(x.size(0), work, [&](int64_t k, int64_t count) {
            body(head, x.const_data_ptr<scalar_t>() + k * shape.size * shape.channels, k, count);
        });
    });
}

} // namespace

Tensor energy_head_cpu(const EnergyHead &in) {
    const Tensor out = at::empty({in.x.size(0)}, in.x.options());
    energy_head_any(in, 1, [&]<class Real>(const Head<Real> &head, const Real *x, int64_t k, int64_t count) {
        head.forward(x, count, out.mutable_data_ptr<Real>() + k);
    });
    return out;
}

Tensor energy_head_backward_cpu(const Tensor &grad, const EnergyHead &in) {
    check_shape("grad", grad, in.x, {in.x.size(0)});
    const Tensor dense = grad.contiguous(), out = at::empty(in.x.sizes(), in.x.options());
    const int64_t width = in.x.numel() / std::max<int64_t>(in.x.size(0), 1);
    energy_head_any(in, 2, [&]<class Real>(const Head<Real> &head, const Real *x, int64_t k, int64_t count) {
        head.backward(x, dense.const_data_ptr<Real>() + k, count, out.mutable_data_ptr<Real>() + k * width);
    });
    return out;
}

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    m.def("energy_head_pack(Tensor norm_weight, Tensor norm_bias, Tensor balance, Tensor[] layers) -> Tensor",
          energy_head_pack);
}

} // namespace equistride
