// First gradients of the atoms' blocks; weights are frozen.
#include "atom_block/atom_block.h"
#include "frozen.h"
#include "operators.h"

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace equistride {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr char WEIGHTS[] = "weights of the fused norm and atom block";

Tensor call_norm(const SphericalNorm &in) {
    static const auto op = find_operator<decltype(spherical_norm_with<call_norm>)>("equistride::spherical_norm");
    return op.call(in.x, in.weight, in.bias, in.balance, in.eps);
}
Tensor call_norm_backward(const Tensor &grad, const SphericalNorm &in) {
    static const auto op = find_operator<decltype(spherical_norm_backward_with<call_norm_backward>)>(
        "equistride::spherical_norm_backward");
    return op.call(grad, in.x, in.weight, in.bias, in.balance, in.eps);
}
Tensor call_block(const AtomBlock &in) {
    static const auto op = find_operator<decltype(atom_block_with<call_block>)>("equistride::atom_block");
    return op.call(in.x, in.messages, in.weights, in.hidden_channels, in.eps);
}
Tensor call_block_backward(const Tensor &grad, const AtomBlock &in) {
    static const auto op =
        find_operator<decltype(atom_block_backward_with<call_block_backward>)>("equistride::atom_block_backward");
    return op.call(grad, in.x, in.messages, in.weights, in.hidden_channels, in.eps);
}

// Of the functions below, arguments that have a gradient come first and alone, as autograd wants them.
struct Norm : torch::autograd::Function<Norm> {
    static Tensor forward(AutogradContext *context, const Tensor &, const SphericalNorm &in) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({in.x, in.weight, in.bias, in.balance});
        context->saved_data["eps"] = in.eps;
        return call_norm(in);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list in = context->get_saved_variables();
        return {call_norm_backward(grads[0], {in[0], in[1], in[2], in[3], context->saved_data["eps"].toDouble()}),
                Tensor()};
    }
};

struct Block : torch::autograd::Function<Block> {
    static Tensor forward(AutogradContext *context, const Tensor &, const Tensor &, const AtomBlock &in) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({in.x, in.messages, in.weights});
        context->saved_data["hidden"] = in.hidden_channels;
        context->saved_data["eps"] = in.eps;
        return call_block(in);
    }
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list in = context->get_saved_variables();
        const Tensor on_both =
            call_block_backward(grads[0], {in[0], in[1], in[2], context->saved_data["hidden"].toInt(),
                                           context->saved_data["eps"].toDouble()});
        return {on_both, on_both, Tensor()};
    }
};

Tensor norm_autograd(const SphericalNorm &in) {
    check_frozen(WEIGHTS, {in.weight, in.bias, in.balance});
    return Norm::apply(in.x, in);
}
Tensor norm_backward_autograd(const Tensor &grad, const SphericalNorm &in) {
    refuse_second("the fused norm and atom block have", {grad, in.x, in.weight, in.bias, in.balance});
    at::AutoDispatchBelowADInplaceOrView below;
    return call_norm_backward(grad, in);
}
Tensor block_autograd(const AtomBlock &in) {
    check_frozen(WEIGHTS, {in.weights});
    return Block::apply(in.x, in.messages, in);
}
Tensor block_backward_autograd(const Tensor &grad, const AtomBlock &in) {
    refuse_second("the fused norm and atom block have", {grad, in.x, in.messages, in.weights});
    at::AutoDispatchBelowADInplaceOrView below;
    return call_block_backward(grad, in);
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, Autograd, m) {
    implement_atom_block<norm_autograd, norm_backward_autograd, block_autograd, block_backward_autograd>(m);
}

} // namespace equistride
