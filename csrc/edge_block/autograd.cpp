// First gradients of the edge block and of the splines; weights and tables are frozen.
#include "edge_block/edge_block.h"

#include <torch/csrc/autograd/custom_function.h>

namespace equistride {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Sizes {
    int64_t l_max, m_max, hidden_channels;
    bool mirror;
};

std::tuple<Tensor, Tensor> call_block(const variable_list &in, const Sizes &sizes, int64_t keep) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("equistride::edge_block", "")
                               .typed<std::tuple<Tensor, Tensor>(
                                   const Tensor &, const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                                   const Tensor &, const Tensor &, int64_t, int64_t, int64_t, bool, int64_t)>();
    return op.call(in[0], in[1], in[2], in[3], in[4], in[5], in[6], sizes.l_max, sizes.m_max, sizes.hidden_channels,
                   sizes.mirror, keep);
}

EdgeGradients call_block_backward(const Tensor &grad, const variable_list &in, const Tensor &kept, const Sizes &sizes) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("equistride::edge_block_backward", "")
                               .typed<EdgeGradients(const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                                                    const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                                                    const Tensor &, int64_t, int64_t, int64_t, bool)>();
    return op.call(grad, in[0], in[1], in[2], in[3], in[4], in[5], in[6], kept, sizes.l_max, sizes.m_max,
                   sizes.hidden_channels, sizes.mirror);
}

Tensor call_splines(const Tensor &lengths, const Tensor &pair, const Tensor &tables, double start, double step) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("equistride::radial_splines", "")
                               .typed<Tensor(const Tensor &, const Tensor &, const Tensor &, double, double)>();
    return op.call(lengths, pair, tables, start, step);
}

Tensor call_splines_backward(const Tensor &grad, const Tensor &lengths, const Tensor &pair, const Tensor &tables,
                             double start, double step) {
    static const auto op =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow("equistride::radial_splines_backward", "")
            .typed<Tensor(const Tensor &, const Tensor &, const Tensor &, const Tensor &, double, double)>();
    return op.call(grad, lengths, pair, tables, start, step);
}

struct Block : torch::autograd::Function<Block> {
    static variable_list forward(AutogradContext *context, const Tensor &x, const Tensor &vectors, const Tensor &frames,
                                 const Tensor &envelope, const Tensor &hidden, const Tensor &edge_index,
                                 const Tensor &weights, int64_t l_max, int64_t m_max, int64_t hidden_channels,
                                 bool mirror, int64_t keep) {
        at::AutoDispatchBelowADInplaceOrView below;
        const variable_list in = {x, vectors, frames, envelope, hidden, edge_index, weights};
        const auto [out, kept] = call_block(in, {l_max, m_max, hidden_channels, mirror}, keep);
        context->save_for_backward({x, vectors, frames, envelope, hidden, edge_index, weights, kept});
        context->mark_non_differentiable({kept});
        context->set_materialize_grads(false); // zeros as large as `kept`, that nobody reads
        context->saved_data["l_max"] = l_max;
        context->saved_data["m_max"] = m_max;
        context->saved_data["hidden_channels"] = hidden_channels;
        context->saved_data["mirror"] = mirror;
        return {out, kept};
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        if (!grads[0].defined())
            return variable_list(12);
        const variable_list in = context->get_saved_variables();
        const auto number = [&](const char *name) { return context->saved_data[name].toInt(); };
        const auto [x, vectors, envelope, hidden] = call_block_backward(
            grads[0], in, in[7],
            {number("l_max"), number("m_max"), number("hidden_channels"), context->saved_data["mirror"].toBool()});
        variable_list all(12);
        all[0] = x;
        all[1] = vectors;
        all[3] = envelope;
        all[4] = hidden;
        return all;
    }
};

struct Splines : torch::autograd::Function<Splines> {
    static Tensor forward(AutogradContext *context, const Tensor &lengths, const Tensor &pair, const Tensor &tables,
                          double start, double step) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({lengths, pair, tables});
        context->saved_data["start"] = start;
        context->saved_data["step"] = step;
        return call_splines(lengths, pair, tables, start, step);
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list in = context->get_saved_variables();
        variable_list all(5);
        all[0] = call_splines_backward(grads[0], in[0], in[1], in[2], context->saved_data["start"].toDouble(),
                                       context->saved_data["step"].toDouble());
        return all;
    }
};

bool wants_gradient(const variable_list &tensors) {
    return at::GradMode::is_enabled() &&
           std::any_of(tensors.begin(), tensors.end(), [](const Tensor &tensor) { return tensor.requires_grad(); });
}

void check_frozen(const char *what, const variable_list &tensors) {
    TORCH_CHECK_VALUE(!wants_gradient(tensors), what,
                      " have no gradient here; expected tensors that need none; train with "
                      "the plain network and fuse it afterwards");
}

void refuse_second(const variable_list &tensors) {
    TORCH_CHECK_NOT_IMPLEMENTED(!wants_gradient(tensors),
                                "the fused edge block has first gradients only; for second gradients use the plain "
                                "network");
}

Tensor bond_frames_autograd(const Tensor &vectors, int64_t l_max) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("equistride::bond_frames", "")
                               .typed<Tensor(const Tensor &, int64_t)>();
    return op.call(vectors, l_max);
}

std::tuple<Tensor, Tensor> edge_block_autograd(const Tensor &x, const Tensor &vectors, const Tensor &frames,
                                               const Tensor &envelope, const Tensor &hidden, const Tensor &edge_index,
                                               const Tensor &weights, int64_t l_max, int64_t m_max,
                                               int64_t hidden_channels, bool mirror, int64_t keep) {
    check_frozen("frames and weights of the edge block", {frames, weights});
    const variable_list out = Block::apply(x, vectors, frames, envelope, hidden, edge_index, weights, l_max, m_max,
                                           hidden_channels, mirror, keep);
    return {out[0], out[1]};
}

EdgeGradients edge_block_backward_autograd(const Tensor &grad, const Tensor &x, const Tensor &vectors,
                                           const Tensor &frames, const Tensor &envelope, const Tensor &hidden,
                                           const Tensor &edge_index, const Tensor &weights, const Tensor &kept,
                                           int64_t l_max, int64_t m_max, int64_t hidden_channels, bool mirror) {
    refuse_second({grad, x, vectors, frames, envelope, hidden, weights});
    at::AutoDispatchBelowADInplaceOrView below;
    return call_block_backward(grad, {x, vectors, frames, envelope, hidden, edge_index, weights}, kept,
                               {l_max, m_max, hidden_channels, mirror});
}

Tensor radial_splines_autograd(const Tensor &lengths, const Tensor &pair, const Tensor &tables, double start,
                               double step) {
    check_frozen("radial tables", {tables});
    return Splines::apply(lengths, pair, tables, start, step);
}

Tensor radial_splines_backward_autograd(const Tensor &grad, const Tensor &lengths, const Tensor &pair,
                                        const Tensor &tables, double start, double step) {
    refuse_second({grad, lengths, tables});
    at::AutoDispatchBelowADInplaceOrView below;
    return call_splines_backward(grad, lengths, pair, tables, start, step);
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, Autograd, m) {
    m.impl("bond_frames", bond_frames_autograd);
    m.impl("edge_block", edge_block_autograd);
    m.impl("edge_block_backward", edge_block_backward_autograd);
    m.impl("radial_splines", radial_splines_autograd);
    m.impl("radial_splines_backward", radial_splines_backward_autograd);
}

} // namespace equistride
