// First gradients of the edge block and of the splines; weights and tables are frozen.
#include "edge_block/edge_block.h"
#include "frozen.h"
#include "operators.h"

#include <torch/csrc/autograd/custom_function.h>

namespace equistride {

std::tuple<Tensor, Tensor> call_block(const EdgeBlock &in, int64_t keep) {
    static const auto op = find_operator<decltype(edge_block_with<call_block>)>("equistride::edge_block");
    return op.call(in.x, in.vectors, in.frames, in.envelope, in.hidden, in.edge_index, in.weights, in.l_max, in.m_max,
                   in.hidden_channels, in.mirror, keep);
}

EdgeGradients call_block_backward(const Tensor &grad, const EdgeBlock &in, const Tensor &kept) {
    static const auto op =
        find_operator<decltype(edge_block_backward_with<call_block_backward>)>("equistride::edge_block_backward");
    return op.call(grad, in.x, in.vectors, in.frames, in.envelope, in.hidden, in.edge_index, in.weights, kept, in.l_max,
                   in.m_max, in.hidden_channels, in.mirror);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_splines(const RadialSplines &in) {
    static const auto op = find_operator<decltype(radial_splines_with<call_splines>)>("equistride::radial_splines");
    return op.call(in.lengths, in.pair, in.tables, in.start, in.step);
}

Tensor call_splines_backward(const Tensor &grad, const RadialSplines &in) {
    static const auto op = find_operator<decltype(radial_splines_backward_with<call_splines_backward>)>(
        "equistride::radial_splines_backward");
    return op.call(grad, in.lengths, in.pair, in.tables, in.start, in.step);
}

// Of the functions below, arguments that have a gradient come first and alone, as autograd wants them.
struct Block : torch::autograd::Function<Block> {
    static variable_list forward(AutogradContext *context, const Tensor &, const Tensor &, const Tensor &,
                                 const Tensor &, const EdgeBlock &in, int64_t keep) {
        at::AutoDispatchBelowADInplaceOrView below;
        const auto [out, kept] = call_block(in, keep);
        context->save_for_backward(
            {in.x, in.vectors, in.frames, in.envelope, in.hidden, in.edge_index, in.weights, kept});
        context->mark_non_differentiable({kept});
        context->set_materialize_grads(false); // zeros as large as `kept`, that nobody reads
        context->saved_data["sizes"] = std::vector<int64_t>{in.l_max, in.m_max, in.hidden_channels, in.mirror};
        return {out, kept};
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        if (!grads[0].defined())
            return variable_list(6);
        const variable_list in = context->get_saved_variables();
        const std::vector<int64_t> sizes = context->saved_data["sizes"].toIntVector();
        const auto [x, vectors, envelope, hidden] = call_block_backward(
            grads[0], {in[0], in[1], in[2], in[3], in[4], in[5], in[6], sizes[0], sizes[1], sizes[2], sizes[3] != 0},
            in[7]);
        return {x, vectors, envelope, hidden, Tensor(), Tensor()};
    }
};

struct Splines : torch::autograd::Function<Splines> {
    static Tensor forward(AutogradContext *context, const Tensor &, const RadialSplines &in) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({in.lengths, in.pair, in.tables});
        context->saved_data["start"] = in.start;
        context->saved_data["step"] = in.step;
        return call_splines(in);
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list in = context->get_saved_variables();
        const auto number = [&](const char *name) { return context->saved_data[name].toDouble(); };
        return {call_splines_backward(grads[0], {in[0], in[1], in[2], number("start"), number("step")}), Tensor()};
    }
};

Tensor bond_frames_autograd(const Tensor &vectors, int64_t l_max) {
    at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = find_operator<decltype(bond_frames_autograd)>("equistride::bond_frames");
    return op.call(vectors, l_max);
}

std::tuple<Tensor, Tensor> edge_block_autograd(const EdgeBlock &in, int64_t keep) {
    check_frozen("frames and weights of the edge block", {in.frames, in.weights});
    const variable_list out = Block::apply(in.x, in.vectors, in.envelope, in.hidden, in, keep);
    return {out[0], out[1]};
}

EdgeGradients edge_block_backward_autograd(const Tensor &grad, const EdgeBlock &in, const Tensor &kept) {
    refuse_second("the fused edge block has", {grad, in.x, in.vectors, in.frames, in.envelope, in.hidden, in.weights});
    at::AutoDispatchBelowADInplaceOrView below;
    return call_block_backward(grad, in, kept);
}

Tensor radial_splines_autograd(const RadialSplines &in) {
    check_frozen("radial tables", {in.tables});
    return Splines::apply(in.lengths, in);
}

Tensor radial_splines_backward_autograd(const Tensor &grad, const RadialSplines &in) {
    refuse_second("the fused edge block has", {grad, in.lengths, in.tables});
    at::AutoDispatchBelowADInplaceOrView below;
    return call_splines_backward(grad, in);
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, Autograd, m) {
    m.impl("bond_frames", bond_frames_autograd);
    implement_edge_block<edge_block_autograd, edge_block_backward_autograd>(m);
    implement_splines<radial_splines_autograd, radial_splines_backward_autograd>(m);
}

} // namespace equistride
