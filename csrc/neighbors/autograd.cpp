// Gradients. Edge vectors are linear in positions and cell, so the backward of the backward is the operator again.
#include "neighbors/neighbors.h"
#include "operators.h"

#include <torch/csrc/autograd/custom_function.h>

namespace equistride {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_edge_vectors(const Tensor &positions, const Tensor &cell, const Tensor &edge_index, const Tensor &shifts) {
    static const auto op = find_operator<decltype(call_edge_vectors)>("equistride::edge_vectors");
    return op.call(positions, cell, edge_index, shifts);
}

std::tuple<Tensor, Tensor> call_backward(const Tensor &grad, const Tensor &edge_index, const Tensor &shifts,
                                         c10::SymInt num_atoms) {
    static const auto op = find_operator<decltype(call_backward)>("equistride::edge_vectors_backward");
    return op.call(grad, edge_index, shifts, std::move(num_atoms));
}

struct EdgeVectors : torch::autograd::Function<EdgeVectors> {
    static Tensor forward(AutogradContext *context, const Tensor &positions, const Tensor &cell,
                          const Tensor &edge_index, const Tensor &shifts) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({edge_index, shifts});
        context->saved_data["num_atoms"] = positions.sym_size(0);
        return call_edge_vectors(positions, cell, edge_index, shifts);
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list saved = context->get_saved_variables();
        auto [on_positions, on_cell] =
            call_backward(grads[0], saved[0], saved[1], context->saved_data["num_atoms"].toSymInt());
        return {on_positions, on_cell, Tensor(), Tensor()};
    }
};

struct EdgeVectorsBackward : torch::autograd::Function<EdgeVectorsBackward> {
    static variable_list forward(AutogradContext *context, const Tensor &grad, const Tensor &edge_index,
                                 const Tensor &shifts, c10::SymInt num_atoms) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({edge_index, shifts});
        auto [on_positions, on_cell] = call_backward(grad, edge_index, shifts, std::move(num_atoms));
        return {on_positions, on_cell};
    }

    // Gradients that nobody asked for arrive as zeros.
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list saved = context->get_saved_variables();
        return {call_edge_vectors(grads[0], grads[1], saved[0], saved[1]), Tensor(), Tensor(), Tensor()};
    }
};

Tensor edge_vectors_autograd(const Tensor &positions, const Tensor &cell, const Tensor &edge_index,
                             const Tensor &shifts) {
    return EdgeVectors::apply(positions, cell, edge_index, shifts);
}

std::tuple<Tensor, Tensor> edge_vectors_backward_autograd(const Tensor &grad, const Tensor &edge_index,
                                                          const Tensor &shifts, c10::SymInt num_atoms) {
    const variable_list out = EdgeVectorsBackward::apply(grad, edge_index, shifts, std::move(num_atoms));
    return {out[0], out[1]};
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, Autograd, m) {
    m.impl("edge_vectors", edge_vectors_autograd);
    m.impl("edge_vectors_backward", edge_vectors_backward_autograd);
}

} // namespace equistride
