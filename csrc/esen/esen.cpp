// A served eSEN in one operator: atomic energies from bonds, and the gradient to the bonds.
//
//     x = first features(u, splines(r)), then for each layer x = atoms(x, edges(exchange(norm(x)), splines(r)))
//     energies = head(x)
#include "atom_block/atom_block.h"
#include "atom_block/head.h"
#include "checks.h"
#include "edge_block/bonds.h"
#include "edge_block/edge_block.h"
#include "frozen.h"
#include "model/exchange.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/custom_class.h>
#include <torch/library.h>

namespace equistride {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr size_t OF_NETWORK = 3, OF_LAYER = 6; // tensors in `weights`
constexpr size_t MOST_LAYERS = 64;             // as many as a file may declare

struct Sizes {
    double cutoff;
    int64_t exponent; // of the envelope; 0: none
    double degree_scale, eps;
    int64_t l_max, m_max, hidden_channels;
    bool mirror;
    int64_t keep; // bytes a layer
};

Tensor first_rows(const Tensor &all, int64_t rows) { return all.size(0) == rows ? all : all.narrow(0, 0, rows); }

// Zeros in the rows of atoms that another process owns.
Tensor with_rows(const Tensor &own, int64_t rows) {
    if (own.size(0) == rows)
        return own;
    std::vector<int64_t> missing = own.sizes().vec();
    missing[0] = rows - own.size(0);
    return at::cat({own, own.new_zeros(missing)});
}

void add(Tensor &sum, const Tensor &more) {
    if (sum.defined())
        sum.add_(more);
    else
        sum = more;
}

// One evaluation: the arguments, and what the forward leaves for the backward.
class Evaluated final : public torch::CustomClassHolder {
public:
    Evaluated(const Tensor &vectors, const Tensor &species, const Tensor &edge_index, at::TensorList weights,
              at::ArrayRef<double> knots, const Sizes &sizes)
        : vectors_(vectors), species_(species), edge_index_(edge_index), weights_(weights.vec()), knots_(knots.vec()),
          sizes_(sizes) {
        TORCH_CHECK_VALUE(weights.size() >= OF_NETWORK && (weights.size() - OF_NETWORK) % OF_LAYER == 0, "an eSEN is ",
                          OF_NETWORK, " tensors and ", OF_LAYER, " a layer; found ", weights.size());
        layers_.resize((weights.size() - OF_NETWORK) / OF_LAYER);
        TORCH_CHECK_VALUE(layers_.size() <= MOST_LAYERS, "an eSEN has at most ", MOST_LAYERS, " layers; found ",
                          layers_.size());
        TORCH_CHECK_VALUE(knots.size() == 2 * (layers_.size() + 1), "an eSEN of ", layers_.size(), " layers has ",
                          layers_.size() + 1, " splines, with a start and a step each; found ", knots.size(),
                          " numbers");
        for (size_t k = 0; k < layers_.size(); ++k)
            weights_[OF_NETWORK + k * OF_LAYER + 2] = of_layer(k, 2).flatten(); // a row's weight in the mean square
    }

    const Tensor &species() const { return species_; }
    const Tensor &edge_index() const { return edge_index_; }

    Tensor forward(bool gradient) {
        Exchange *const others = others_ = current_exchange();
        const auto [lengths, envelope] = bond_lengths_cpu(vectors_, sizes_.cutoff, sizes_.exponent);
        lengths_ = lengths;
        envelope_ = envelope;
        frames_ = bond_frames_cpu(vectors_, sizes_.l_max);
        check_edge_index(edge_index_, "vectors", vectors_);
        pair_ = at::add(species_.index_select(0, edge_index_[1]), species_.index_select(0, edge_index_[0]),
                        embedding().size(0));
        scalars_ = embedding().index_select(0, species_);
        radial_ = radial_splines_cpu(splines(0));
        Tensor x = edge_degree_cpu(degree());
        if (others && others->owned() >= 0)
            x = first_rows(x, others->owned());
        for (size_t k = 0; k < layers_.size(); ++k) {
            Layer now;
            now.x = x;
            now.normed = spherical_norm_cpu(norm(k, now));
            if (others)
                now.normed = others->forward(now.normed);
            now.hidden = radial_splines_cpu(splines(k + 1));
            const auto [messages, kept] = call_block(edges(k, now), gradient ? sizes_.keep : 0);
            now.messages = first_rows(messages, x.size(0));
            now.kept = kept;
            x = atom_block_cpu(atoms(k, now));
            if (gradient)
                layers_[k] = std::move(now);
        }
        last_ = x;
        return with_rows(energy_head_cpu(head()), species_.size(0));
    }

    // To the vectors, of the sum of `grad` [N] times the energies. A CPU's backward runs on the thread that asks for
    // it.
    Tensor backward(const Tensor &grad) const {
        Exchange *const others = current_exchange();
        TORCH_CHECK(others == others_,
                    "the gradient of an eSEN is asked for outside of its exchange between processes");
        const int64_t own = last_.size(0);
        Tensor on_vectors, on_lengths, on_envelope, on_x = energy_head_backward_cpu(first_rows(grad, own), head());
        for (size_t k = layers_.size(); k-- > 0;) {
            const Layer &then = layers_[k];
            const Tensor on_both = atom_block_backward_cpu(on_x, atoms(k, then));
            const auto [on_normed, vectors, envelope, hidden] =
                call_block_backward(with_rows(on_both, then.normed.size(0)), edges(k, then), then.kept);
            add(on_vectors, vectors);
            add(on_envelope, envelope);
            add(on_lengths, radial_splines_backward_cpu(hidden, splines(k + 1)));
            on_x = spherical_norm_backward_cpu(first_rows(others ? others->backward(on_normed) : on_normed, own),
                                               norm(k, then))
                       .add_(on_both);
        }
        const auto [vectors, envelope, radial] = edge_degree_backward_cpu(with_rows(on_x, species_.size(0)), degree());
        add(on_vectors, vectors);
        add(on_envelope, envelope);
        add(on_lengths, radial_splines_backward_cpu(radial, splines(0)));
        return on_vectors.add_(
            bond_lengths_backward_cpu(on_lengths, on_envelope, vectors_, sizes_.cutoff, sizes_.exponent));
    }

private:
    struct Layer {
        Tensor x, normed, hidden, messages, kept;
    };

    const Tensor vectors_, species_, edge_index_;
    std::vector<Tensor> weights_;
    const std::vector<double> knots_;
    const Sizes sizes_;
    Tensor lengths_, envelope_, frames_, pair_, scalars_, radial_, last_;
    std::vector<Layer> layers_;
    Exchange *others_ = nullptr;

    // The weights in their order.
    const Tensor &embedding() const { return weights_[0]; }
    const Tensor &of_layer(size_t layer, size_t k) const { return weights_[OF_NETWORK + layer * OF_LAYER + k]; }
    RadialSplines splines(size_t k) const {
        return {lengths_, pair_, k == 0 ? weights_[1] : of_layer(k - 1, 3), knots_[2 * k], knots_[2 * k + 1]};
    }
    EnergyHead head() const { return {last_, weights_[2], sizes_.hidden_channels, sizes_.eps}; }
    SphericalNorm norm(size_t k, const Layer &layer) const {
        return {layer.x, of_layer(k, 0), of_layer(k, 1), of_layer(k, 2), sizes_.eps};
    }
    EdgeBlock edges(size_t k, const Layer &layer) const {
        return {layer.normed, vectors_,       frames_,      envelope_,    layer.hidden,
                edge_index_,  of_layer(k, 4), sizes_.l_max, sizes_.m_max, sizes_.hidden_channels,
                sizes_.mirror};
    }
    AtomBlock atoms(size_t k, const Layer &layer) const {
        return {layer.x, layer.messages, of_layer(k, 5), sizes_.hidden_channels, sizes_.eps};
    }
    EdgeDegree degree() const {
        return {scalars_, vectors_, frames_, envelope_, radial_, edge_index_, sizes_.degree_scale};
    }
};

struct Energies : torch::autograd::Function<Energies> {
    static Tensor forward(AutogradContext *context, const Tensor &vectors, const c10::intrusive_ptr<Evaluated> &run) {
        const at::AutoDispatchBelowADInplaceOrView below;
        // also the variables that a graph lets go one after the other, and whose changes in place it sees
        context->save_for_backward({vectors, run->species(), run->edge_index()});
        context->saved_data["run"] = c10::IValue::make_capsule(run);
        return run->forward(true);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list in = context->get_saved_variables();
        refuse_second("the fused eSEN has", {grads[0], in[0]});
        const auto run = context->saved_data["run"].toCapsule();
        if (!torch::autograd::get_current_graph_task_keep_graph())
            context->saved_data.erase("run");
        const at::AutoDispatchBelowADInplaceOrView below;
        return {static_cast<const Evaluated &>(*run).backward(grads[0]), Tensor()};
    }
};

Tensor esen(const Tensor &vectors, const Tensor &species, const Tensor &edge_index, at::TensorList weights,
            at::ArrayRef<double> knots, double cutoff, int64_t exponent, double degree_scale, double eps, int64_t l_max,
            int64_t m_max, int64_t hidden_channels, bool mirror, int64_t keep) {
    check_frozen("weights of the fused eSEN", weights.vec());
    const auto run = c10::make_intrusive<Evaluated>(
        vectors.detach(), species, edge_index, weights, knots,
        Sizes{cutoff, exponent, degree_scale, eps, l_max, m_max, hidden_channels, mirror, keep});
    if (wants_gradient({vectors}))
        return Energies::apply(vectors, run);
    const at::AutoDispatchBelowADInplaceOrView below;
    return run->forward(false);
}

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    m.def("esen(Tensor vectors, Tensor species, Tensor edge_index, Tensor[] weights, float[] knots, float cutoff, int "
          "exponent, float degree_scale, float eps, int l_max, int m_max, int hidden_channels, bool mirror, int keep) "
          "-> Tensor");
}

TORCH_LIBRARY_IMPL(equistride, CPU, m) { m.impl("esen", esen); }
TORCH_LIBRARY_IMPL(equistride, AutogradCPU, m) { m.impl("esen", esen); }

} // namespace equistride
