// Gradients. The convolution is linear in each of x, y and weights, so the backward of its backward is made of both
// again.
#include "tensor_product/tensor_product.h"

#include <ATen/ops/add.h>
#include <torch/csrc/autograd/custom_function.h>

namespace equistride {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Wanted = std::array<bool, 3>;

Tensor call_forward(const Tensor &x, const Tensor &y, const Tensor &weights, const Tensor &edge_index,
                    IntArrayRef paths, ArrayRef<double> couplings, c10::SymInt num_receivers) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("equistride::tensor_product", "")
                               .typed<Tensor(const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                                             IntArrayRef, ArrayRef<double>, c10::SymInt)>();
    return op.call(x, y, weights, edge_index, paths, couplings, std::move(num_receivers));
}

Gradients call_backward(const Tensor &grad, const Tensor &x, const Tensor &y, const Tensor &weights,
                        const Tensor &edge_index, IntArrayRef paths, ArrayRef<double> couplings, Wanted wanted) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("equistride::tensor_product_backward", "")
                               .typed<Gradients(const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                                                const Tensor &, IntArrayRef, ArrayRef<double>, Wanted)>();
    return op.call(grad, x, y, weights, edge_index, paths, couplings, wanted);
}

Tensor call_table(const Tensor &x, const Tensor &y, const Tensor &lengths, const Tensor &table, double start,
                  double step, const Tensor &edge_index, IntArrayRef paths, ArrayRef<double> couplings,
                  c10::SymInt num_receivers) {
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("equistride::tensor_product_table", "")
                               .typed<Tensor(const Tensor &, const Tensor &, const Tensor &, const Tensor &, double,
                                             double, const Tensor &, IntArrayRef, ArrayRef<double>, c10::SymInt)>();
    return op.call(x, y, lengths, table, start, step, edge_index, paths, couplings, std::move(num_receivers));
}

Gradients call_table_backward(const Tensor &grad, const Tensor &x, const Tensor &y, const Tensor &lengths,
                              const Tensor &table, double start, double step, const Tensor &edge_index,
                              IntArrayRef paths, ArrayRef<double> couplings, Wanted wanted) {
    static const auto op =
        c10::Dispatcher::singleton()
            .findSchemaOrThrow("equistride::tensor_product_table_backward", "")
            .typed<Gradients(const Tensor &, const Tensor &, const Tensor &, const Tensor &, const Tensor &, double,
                             double, const Tensor &, IntArrayRef, ArrayRef<double>, Wanted)>();
    return op.call(grad, x, y, lengths, table, start, step, edge_index, paths, couplings, wanted);
}

struct Spec {
    std::vector<int64_t> paths;
    std::vector<double> couplings;
};

void keep(AutogradContext *context, IntArrayRef paths, ArrayRef<double> couplings) {
    context->saved_data["paths"] = paths.vec();
    context->saved_data["couplings"] = couplings.vec();
}
Spec kept(AutogradContext *context) {
    return {context->saved_data["paths"].toIntVector(), context->saved_data["couplings"].toDoubleVector()};
}

Tensor or_undefined(const Tensor &grad, bool wanted) { return wanted ? grad : Tensor(); }

// Gradients of three arguments, in the order of the operator's; the others have none.
variable_list spread(const Gradients &grads, const Wanted &wanted, size_t arguments) {
    variable_list all(arguments);
    all[0] = or_undefined(std::get<0>(grads), wanted[0]);
    all[1] = or_undefined(std::get<1>(grads), wanted[1]);
    all[2] = or_undefined(std::get<2>(grads), wanted[2]);
    return all;
}

struct Convolution : torch::autograd::Function<Convolution> {
    static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &y, const Tensor &weights,
                          const Tensor &edge_index, IntArrayRef paths, ArrayRef<double> couplings,
                          c10::SymInt num_receivers) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({x, y, weights, edge_index});
        keep(context, paths, couplings);
        return call_forward(x, y, weights, edge_index, paths, couplings, std::move(num_receivers));
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list in = context->get_saved_variables();
        const Spec spec = kept(context);
        const Wanted wanted = {context->needs_input_grad(0), context->needs_input_grad(1),
                               context->needs_input_grad(2)};
        return spread(call_backward(grads[0], in[0], in[1], in[2], in[3], spec.paths, spec.couplings, wanted), wanted,
                      7);
    }
};

struct ConvolutionBackward : torch::autograd::Function<ConvolutionBackward> {
    static variable_list forward(AutogradContext *context, const Tensor &grad, const Tensor &x, const Tensor &y,
                                 const Tensor &weights, const Tensor &edge_index, IntArrayRef paths,
                                 ArrayRef<double> couplings, Wanted wanted) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({grad, x, y, weights, edge_index});
        keep(context, paths, couplings);
        context->saved_data["wanted"] = std::vector<int64_t>(wanted.begin(), wanted.end());
        context->set_materialize_grads(false);
        auto [on_x, on_y, on_weights] = call_backward(grad, x, y, weights, edge_index, paths, couplings, wanted);
        return {on_x, on_y, on_weights};
    }

    // With u, v, q the gradients of the three outputs, what is differentiated is <grad, T(u, y, w) + T(x, v, w) + T(x,
    // y, q)>.
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list in = context->get_saved_variables();
        const std::vector<int64_t> was_wanted = context->saved_data["wanted"].toIntVector();
        const Spec spec = kept(context);
        variable_list all(8);
        for (size_t k = 0; k < 3; ++k) {
            if (!grads[k].defined() || was_wanted[k] == 0)
                continue;
            Tensor at[3] = {in[1], in[2], in[3]};
            at[k] = grads[k];
            const auto add = [](Tensor &sum, const Tensor &term) { sum = sum.defined() ? at::add(sum, term) : term; };
            if (context->needs_input_grad(0))
                add(all[0], call_forward(at[0], at[1], at[2], in[4], spec.paths, spec.couplings, in[0].sym_size(0)));
            Wanted wanted = {context->needs_input_grad(1), context->needs_input_grad(2), context->needs_input_grad(3)};
            wanted[k] = false;
            if (!wanted[0] && !wanted[1] && !wanted[2])
                continue;
            const auto [on_x, on_y, on_weights] =
                call_backward(in[0], at[0], at[1], at[2], in[4], spec.paths, spec.couplings, wanted);
            const Tensor *terms[3] = {&on_x, &on_y, &on_weights};
            for (size_t other = 0; other < 3; ++other)
                if (wanted[other])
                    add(all[other + 1], *terms[other]);
        }
        return all;
    }
};

struct TableConvolution : torch::autograd::Function<TableConvolution> {
    static Tensor forward(AutogradContext *context, const Tensor &x, const Tensor &y, const Tensor &lengths,
                          const Tensor &table, double start, double step, const Tensor &edge_index, IntArrayRef paths,
                          ArrayRef<double> couplings, c10::SymInt num_receivers) {
        at::AutoDispatchBelowADInplaceOrView below;
        context->save_for_backward({x, y, lengths, table, edge_index});
        context->saved_data["start"] = start;
        context->saved_data["step"] = step;
        keep(context, paths, couplings);
        return call_table(x, y, lengths, table, start, step, edge_index, paths, couplings, std::move(num_receivers));
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const variable_list in = context->get_saved_variables();
        const Spec spec = kept(context);
        const Wanted wanted = {context->needs_input_grad(0), context->needs_input_grad(1),
                               context->needs_input_grad(2)};
        return spread(call_table_backward(grads[0], in[0], in[1], in[2], in[3], context->saved_data["start"].toDouble(),
                                          context->saved_data["step"].toDouble(), in[4], spec.paths, spec.couplings,
                                          wanted),
                      wanted, 10);
    }
};

struct TableConvolutionBackward : torch::autograd::Function<TableConvolutionBackward> {
    static variable_list forward(AutogradContext *, const Tensor &grad, const Tensor &x, const Tensor &y,
                                 const Tensor &lengths, const Tensor &table, double start, double step,
                                 const Tensor &edge_index, IntArrayRef paths, ArrayRef<double> couplings,
                                 Wanted wanted) {
        at::AutoDispatchBelowADInplaceOrView below;
        auto [on_x, on_y, on_lengths] =
            call_table_backward(grad, x, y, lengths, table, start, step, edge_index, paths, couplings, wanted);
        return {on_x, on_y, on_lengths};
    }

    static variable_list backward(AutogradContext *, variable_list) {
        TORCH_CHECK_NOT_IMPLEMENTED(false,
                                    "tensor_product_table has first gradients only; for second gradients give the "
                                    "weights as a tensor (tensor_product)");
    }
};

Tensor tensor_product_autograd(const Tensor &x, const Tensor &y, const Tensor &weights, const Tensor &edge_index,
                               IntArrayRef paths, ArrayRef<double> couplings, c10::SymInt num_receivers) {
    return Convolution::apply(x, y, weights, edge_index, paths, couplings, std::move(num_receivers));
}

Gradients tensor_product_backward_autograd(const Tensor &grad, const Tensor &x, const Tensor &y, const Tensor &weights,
                                           const Tensor &edge_index, IntArrayRef paths, ArrayRef<double> couplings,
                                           Wanted wanted) {
    const variable_list out = ConvolutionBackward::apply(grad, x, y, weights, edge_index, paths, couplings, wanted);
    return {out[0], out[1], out[2]};
}

Tensor tensor_product_table_autograd(const Tensor &x, const Tensor &y, const Tensor &lengths, const Tensor &table,
                                     double start, double step, const Tensor &edge_index, IntArrayRef paths,
                                     ArrayRef<double> couplings, c10::SymInt num_receivers) {
    TORCH_CHECK_VALUE(!table.requires_grad() || !at::GradMode::is_enabled(),
                      "a radial table is frozen; expected one that needs no gradient; train the radial network with "
                      "tensor_product and tabulate it afterwards");
    return TableConvolution::apply(x, y, lengths, table, start, step, edge_index, paths, couplings,
                                   std::move(num_receivers));
}

Gradients tensor_product_table_backward_autograd(const Tensor &grad, const Tensor &x, const Tensor &y,
                                                 const Tensor &lengths, const Tensor &table, double start, double step,
                                                 const Tensor &edge_index, IntArrayRef paths,
                                                 ArrayRef<double> couplings, Wanted wanted) {
    const variable_list out =
        TableConvolutionBackward::apply(grad, x, y, lengths, table, start, step, edge_index, paths, couplings, wanted);
    return {out[0], out[1], out[2]};
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, Autograd, m) {
    m.impl("tensor_product", tensor_product_autograd);
    m.impl("tensor_product_backward", tensor_product_backward_autograd);
    m.impl("tensor_product_table", tensor_product_table_autograd);
    m.impl("tensor_product_table_backward", tensor_product_table_backward_autograd);
}

} // namespace equistride
