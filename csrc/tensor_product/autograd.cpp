// Gradients. The convolution is linear in each of x, y and weights, so the backward of its backward is made of both
// again.
#include "operators.h"
#include "tensor_product/tensor_product.h"

#include <ATen/ops/add.h>
#include <torch/csrc/autograd/custom_function.h>

namespace equistride {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor convolve_autograd(const Convolution &in, c10::SymInt receivers);
Gradients convolve_backward_autograd(const Tensor &grad, const Convolution &in, Wanted wanted);

Tensor call(const Convolution &in, c10::SymInt receivers) {
    static const auto stored =
        find_operator<decltype(tensor_product_with<convolve_autograd, c10::SymInt>)>("equistride::tensor_product");
    static const auto tabulated = find_operator<decltype(tensor_product_table_with<convolve_autograd, c10::SymInt>)>(
        "equistride::tensor_product_table");
    if (in.lengths == nullptr)
        return stored.call(in.x, in.y, in.weights, in.edge_index, in.paths, in.couplings, std::move(receivers));
    return tabulated.call(in.x, in.y, *in.lengths, in.weights, in.start, in.step, in.edge_index, in.paths, in.couplings,
                          std::move(receivers));
}

Gradients call_backward(const Tensor &grad, const Convolution &in, Wanted wanted) {
    static const auto stored = find_operator<decltype(tensor_product_backward_with<convolve_backward_autograd>)>(
        "equistride::tensor_product_backward");
    static const auto tabulated =
        find_operator<decltype(tensor_product_table_backward_with<convolve_backward_autograd>)>(
            "equistride::tensor_product_table_backward");
    if (in.lengths == nullptr)
        return stored.call(grad, in.x, in.y, in.weights, in.edge_index, in.paths, in.couplings, wanted);
    return tabulated.call(grad, in.x, in.y, *in.lengths, in.weights, in.start, in.step, in.edge_index, in.paths,
                          in.couplings, wanted);
}

// The arguments, kept until the backward. Without a table `lengths` is not defined.
void keep(AutogradContext *context, const Tensor &grad, const Convolution &in) {
    context->save_for_backward(
        {in.x, in.y, in.weights, in.lengths == nullptr ? Tensor() : *in.lengths, in.edge_index, grad});
    context->saved_data["start"] = in.start;
    context->saved_data["step"] = in.step;
    context->saved_data["paths"] = in.paths.vec();
    context->saved_data["couplings"] = in.couplings.vec();
}
struct Kept {
    const variable_list tensors;
    const std::vector<int64_t> paths;
    const std::vector<double> couplings;
    const double start, step;

    explicit Kept(AutogradContext *context)
        : tensors(context->get_saved_variables()), paths(context->saved_data["paths"].toIntVector()),
          couplings(context->saved_data["couplings"].toDoubleVector()), start(context->saved_data["start"].toDouble()),
          step(context->saved_data["step"].toDouble()) {}
    const Tensor &grad() const { return tensors[5]; }
    Convolution with(const Tensor &x, const Tensor &y, const Tensor &weights) const {
        return {x, y, weights, tensors[3].defined() ? &tensors[3] : nullptr, start, step, tensors[4], paths, couplings};
    }
    Convolution arguments() const { return with(tensors[0], tensors[1], tensors[2]); }
};

// Tensors that may have a gradient come first and alone, as autograd wants them.
struct Convolve : torch::autograd::Function<Convolve> {
    static Tensor forward(AutogradContext *context, const Tensor &, const Tensor &, const Tensor &,
                          const Convolution &in, c10::SymInt receivers) {
        at::AutoDispatchBelowADInplaceOrView below;
        keep(context, Tensor(), in);
        return call(in, std::move(receivers));
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        const Wanted wanted = {context->needs_input_grad(0), context->needs_input_grad(1),
                               context->needs_input_grad(2)};
        const auto [on_x, on_y, on_third] = call_backward(grads[0], Kept(context).arguments(), wanted);
        const auto if_wanted = [&](const Tensor &found, size_t k) { return wanted[k] ? found : Tensor(); };
        return {if_wanted(on_x, 0), if_wanted(on_y, 1), if_wanted(on_third, 2), Tensor(), Tensor()};
    }
};

struct ConvolveBackward : torch::autograd::Function<ConvolveBackward> {
    static variable_list forward(AutogradContext *context, const Tensor &grad, const Tensor &, const Tensor &,
                                 const Tensor &, const Convolution &in, Wanted wanted) {
        at::AutoDispatchBelowADInplaceOrView below;
        keep(context, grad, in);
        context->saved_data["wanted"] = std::vector<int64_t>(wanted.begin(), wanted.end());
        context->set_materialize_grads(false);
        const auto [on_x, on_y, on_third] = call_backward(grad, in, wanted);
        return {on_x, on_y, on_third};
    }

    // With u, v, q the gradients of the three outputs, what is differentiated is <grad, T(u, y, w) + T(x, v, w) + T(x,
    // y, q)>.
    static variable_list backward(AutogradContext *context, variable_list grads) {
        const Kept kept(context);
        const Convolution in = kept.arguments();
        TORCH_CHECK_NOT_IMPLEMENTED(in.lengths == nullptr,
                                    "tensor_product_table has first gradients only; for second gradients give the "
                                    "weights as a tensor (tensor_product)");
        const std::vector<int64_t> was_wanted = context->saved_data["wanted"].toIntVector();
        variable_list all(6);
        for (size_t k = 0; k < 3; ++k) {
            if (!grads[k].defined() || was_wanted[k] == 0)
                continue;
            Tensor at[3] = {in.x, in.y, in.weights};
            at[k] = grads[k];
            const Convolution there = kept.with(at[0], at[1], at[2]);
            const auto add = [](Tensor &sum, const Tensor &term) { sum = sum.defined() ? at::add(sum, term) : term; };
            if (context->needs_input_grad(0))
                add(all[0], call(there, kept.grad().sym_size(0)));
            Wanted wanted = {context->needs_input_grad(1), context->needs_input_grad(2), context->needs_input_grad(3)};
            wanted[k] = false;
            if (!wanted[0] && !wanted[1] && !wanted[2])
                continue;
            const auto [on_x, on_y, on_weights] = call_backward(kept.grad(), there, wanted);
            const Tensor *terms[3] = {&on_x, &on_y, &on_weights};
            for (size_t other = 0; other < 3; ++other)
                if (wanted[other])
                    add(all[other + 1], *terms[other]);
        }
        return all;
    }
};

// With a table that is learned; first gradients only.
struct Learn : torch::autograd::Function<Learn> {
    static Tensor forward(AutogradContext *context, const Tensor &, const Tensor &, const Tensor &, const Tensor &,
                          const Convolution &in, c10::SymInt receivers) {
        at::AutoDispatchBelowADInplaceOrView below;
        keep(context, Tensor(), in);
        return call(in, std::move(receivers));
    }

    static variable_list backward(AutogradContext *context, variable_list grads) {
        static const auto learn =
            find_operator<decltype(tensor_product_learn_with<learn_cpu>)>("equistride::tensor_product_learn");
        TORCH_CHECK_NOT_IMPLEMENTED(!at::GradMode::is_enabled(),
                                    "a table that is learned has first gradients only; for second gradients give the "
                                    "weights as a tensor (tensor_product)");
        WantedLessons wanted{};
        for (size_t k = 0; k < wanted.size(); ++k)
            wanted[k] = context->needs_input_grad(k);
        const Kept kept(context);
        const Convolution in = kept.arguments();
        at::AutoDispatchBelowADInplaceOrView below;
        const auto [on_x, on_y, on_lengths, on_table] =
            learn.call(grads[0], in.x, in.y, *in.lengths, in.weights, in.start, in.step, in.edge_index, in.paths,
                       in.couplings, wanted);
        const auto if_wanted = [&](const Tensor &found, size_t k) { return wanted[k] ? found : Tensor(); };
        return {if_wanted(on_x, 0),     if_wanted(on_y, 1), if_wanted(on_lengths, 2),
                if_wanted(on_table, 3), Tensor(),           Tensor()};
    }
};

Tensor convolve_autograd(const Convolution &in, c10::SymInt receivers) {
    if (in.lengths != nullptr && in.weights.requires_grad() && at::GradMode::is_enabled()) {
        TORCH_CHECK_VALUE(in.weights.is_cpu(),
                          "a radial table is frozen on a GPU; expected one that needs no gradient; "
                          "train the radial network with tensor_product and tabulate it afterwards");
        return Learn::apply(in.x, in.y, *in.lengths, in.weights, in, std::move(receivers));
    }
    return Convolve::apply(in.x, in.y, in.third(), in, std::move(receivers));
}

Gradients convolve_backward_autograd(const Tensor &grad, const Convolution &in, Wanted wanted) {
    const variable_list out = ConvolveBackward::apply(grad, in.x, in.y, in.third(), in, wanted);
    return {out[0], out[1], out[2]};
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, Autograd, m) {
    implement_convolution<convolve_autograd, convolve_backward_autograd, c10::SymInt>(m);
}

} // namespace equistride
