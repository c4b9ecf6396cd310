// Gradients. The contraction is linear in the table, and its derivative along a direction u of x is again a
// contraction, of x and u side by side: in each term one factor after the other is taken from u. So the backward of the
// backward is made of the two operators again.
#include "operators.h"
#include "symmetric_contraction/symmetric_contraction.h"

#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/custom_function.h>

namespace equistride {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Wanted = std::array<bool, 2>;

Tensor call_forward(const Tensor &x, const Tensor &table, const Tensor &species, const Tensor &terms, int64_t outputs) {
    static const auto op = find_operator<decltype(symmetric_contraction_cpu)>("equistride::symmetric_contraction");
    return op.call(x, table, species, terms, outputs);
}

ContractionGradients call_backward(const Tensor &grad, const Tensor &x, const Tensor &table, const Tensor &species,
                                   const Tensor &terms, Wanted wanted) {
    static const auto op =
        find_operator<decltype(symmetric_contraction_backward_cpu)>("equistride::symmetric_contraction_backward");
    return op.call(grad, x, table, species, terms, wanted);
}

// The terms of the derivative along rows `inputs`, `inputs` + 1, ... of x.
Tensor derivative_terms(const Tensor &terms, const c10::SymInt &inputs) {
    std::vector<Tensor> all;
    for (int64_t k = 0; k < MAX_FACTORS; ++k) {
        const Tensor factor = terms.narrow(1, 2 + k, 1), there = factor.ge(0);
        const Tensor row = at::where(there, terms.narrow(1, 1, 1), -1);
        const Tensor moved = at::where(there, factor.add(c10::Scalar(inputs)), -1);
        all.push_back(
            at::cat({terms.narrow(1, 0, 1), row, terms.narrow(1, 2, k), moved, terms.narrow(1, 3 + k, 3 - k)}, 1));
    }
    return at::cat(all).to(at::kInt);
}

void add(Tensor &sum, const Tensor &term) { sum = sum.defined() ? at::add(sum, term) : term; }

struct Contraction : torch::autograd::Function<Contraction> {
    static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &table, const Tensor &species,
                          const Tensor &terms, int64_t outputs) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({x, table, species, terms});
        return call_forward(x, table, species, terms, outputs);
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list in = context->get_saved_variables();
        const Wanted wanted = {context->needs_input_grad(0), context->needs_input_grad(1)};
        const auto [on_x, on_table] = call_backward(grads[0], in[0], in[1], in[2], in[3], wanted);
        return {wanted[0] ? on_x : Tensor(), wanted[1] ? on_table : Tensor(), Tensor(), Tensor(), Tensor()};
    }
};

struct ContractionBackward : torch::autograd::Function<ContractionBackward> {
    static variable_list forward(AutogradContext *context, const Tensor &grad, const Tensor &x, const Tensor &table,
                                 const Tensor &species, const Tensor &terms, Wanted wanted) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({grad, x, table, species, terms});
        context->saved_data["wanted"] = std::vector<int64_t>(wanted.begin(), wanted.end());
        context->set_materialize_grads(false);
        const auto [on_x, on_table] = call_backward(grad, x, table, species, terms, wanted);
        return {on_x, on_table};
    }

    // With u and v the gradients of the two outputs, what is differentiated is <grad, dB(x, table)[u] + B(x, v)>.
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list in = context->get_saved_variables();
        const Tensor &grad = in[0], &x = in[1], &table = in[2], &species = in[3], &terms = in[4];
        const std::vector<int64_t> was_wanted = context->saved_data["wanted"].toIntVector();
        const Wanted wanted = {context->needs_input_grad(1), context->needs_input_grad(2)};
        const auto outputs = (grad.sym_size(1) / table.sym_size(2)).guard_int(__FILE__, __LINE__);
        variable_list all(6);
        if (grads[0].defined() && was_wanted[0] != 0) {
            const Tensor both = at::cat({x, grads[0]}, 1);
            const Tensor along = derivative_terms(terms, x.sym_size(1) / table.sym_size(2));
            if (context->needs_input_grad(0))
                add(all[0], call_forward(both, table, species, along, outputs));
            if (wanted[0] || wanted[1]) {
                const auto [on_both, on_table] = call_backward(grad, both, table, species, along, wanted);
                if (wanted[0])
                    add(all[1], on_both.narrow_symint(1, 0, x.sym_size(1)));
                if (wanted[1])
                    add(all[2], on_table);
            }
        }
        if (grads[1].defined() && was_wanted[1] != 0) {
            if (context->needs_input_grad(0))
                add(all[0], call_forward(x, grads[1], species, terms, outputs));
            if (wanted[0])
                add(all[1], std::get<0>(call_backward(grad, x, grads[1], species, terms, {true, false})));
        }
        return all;
    }
};

Tensor symmetric_contraction_autograd(const Tensor &x, const Tensor &table, const Tensor &species, const Tensor &terms,
                                      int64_t outputs) {
    return Contraction::apply(x, table, species, terms, outputs);
}

ContractionGradients symmetric_contraction_backward_autograd(const Tensor &grad, const Tensor &x, const Tensor &table,
                                                             const Tensor &species, const Tensor &terms,
                                                             Wanted wanted) {
    const variable_list out = ContractionBackward::apply(grad, x, table, species, terms, wanted);
    return {out[0], out[1]};
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, Autograd, m) {
    m.impl("symmetric_contraction", symmetric_contraction_autograd);
    m.impl("symmetric_contraction_backward", symmetric_contraction_backward_autograd);
}

} // namespace equistride
