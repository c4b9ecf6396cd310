#include "model/total.h"
#include "operators.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>

namespace equistride {
namespace {

thread_local const AllAtoms *current = nullptr;

at::Tensor over_processes(const at::Tensor &mine, const AllAtoms *atoms) {
    if (!atoms || atoms->communicator.size() == 1)
        return mine;
    return atoms->communicator.sum(mine.to(at::kCPU)).to(mine.device());
}

std::int64_t owned_of(std::int64_t rows, const AllAtoms *atoms) { return atoms ? std::min(atoms->owned, rows) : rows; }

void check_rows(const at::Tensor &rows) {
    TORCH_CHECK_VALUE(rows.dim() == 2, "rows to be added have the wrong shape; expected [N, k]; found ", rows.sizes());
}

at::Tensor total(const at::Tensor &rows) {
    check_rows(rows);
    return over_processes(rows.narrow(0, 0, owned_of(rows.size(0), current)).sum(0, false, at::kDouble), current);
}

// Autograd may run the backward on another thread, so the forward notes whose rows they were; 0 is those of all.
const AllAtoms *noted(std::int64_t atoms) {
    return reinterpret_cast<const AllAtoms *>(atoms); // NOLINT(performance-no-int-to-ptr)
}

at::Tensor total_backward(const at::Tensor &gradient, const at::Tensor &like, std::int64_t atoms) {
    const std::int64_t rows = like.size(0), owned = owned_of(rows, noted(atoms));
    const at::Tensor each = over_processes(gradient, noted(atoms)).to(like.scalar_type()).unsqueeze(0);
    if (owned == rows)
        return each.repeat({rows, 1});
    const at::Tensor all = at::zeros({rows, each.size(1)}, each.options());
    all.narrow(0, 0, owned).copy_(each.expand({owned, -1}));
    return all;
}

at::Tensor total_meta(const at::Tensor &rows) {
    check_rows(rows);
    return at::empty_symint({rows.sym_size(1)}, rows.options().dtype(at::kDouble));
}

at::Tensor total_backward_meta(const at::Tensor &, const at::Tensor &like, std::int64_t) {
    return at::empty_like(like);
}

// A sum over processes is its own transpose, so that the derivative of the derivative is the sum again.
class TotalBackward : public torch::autograd::Function<TotalBackward> {
public:
    static at::Tensor forward(torch::autograd::AutogradContext *, const at::Tensor &gradient, const at::Tensor &like,
                              std::int64_t atoms) {
        static const auto op = find_operator<decltype(total_backward)>("equistride::total_backward");
        const at::AutoDispatchBelowADInplaceOrView below;
        return op.call(gradient, like, atoms);
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *,
                                                   const torch::autograd::variable_list &grads) {
        static const auto op = find_operator<decltype(total)>("equistride::total");
        return {op.call(grads[0]), at::Tensor(), at::Tensor()};
    }
};

class Total : public torch::autograd::Function<Total> {
public:
    static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &rows) {
        static const auto op = find_operator<decltype(total)>("equistride::total");
        context->saved_data["atoms"] = reinterpret_cast<std::int64_t>(current);
        context->save_for_backward({rows});
        const at::AutoDispatchBelowADInplaceOrView below;
        return op.call(rows);
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                   const torch::autograd::variable_list &grads) {
        static const auto op = find_operator<decltype(total_backward)>("equistride::total_backward");
        return {op.call(grads[0], context->get_saved_variables()[0].detach(), context->saved_data["atoms"].toInt())};
    }
};

at::Tensor total_autograd(const at::Tensor &rows) { return Total::apply(rows); }
at::Tensor total_backward_autograd(const at::Tensor &gradient, const at::Tensor &like, std::int64_t atoms) {
    return TotalBackward::apply(gradient, like, atoms);
}

} // namespace

TotalScope::TotalScope(const AllAtoms &atoms) : atoms_(atoms), before_(current) { current = &atoms_; }
TotalScope::~TotalScope() { current = before_; }

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    m.def("total(Tensor rows) -> Tensor");
    m.def("total_backward(Tensor gradient, Tensor like, int atoms) -> Tensor");
}

TORCH_LIBRARY_IMPL(equistride, CompositeExplicitAutograd, m) {
    m.impl("total", total);
    m.impl("total_backward", total_backward);
}

TORCH_LIBRARY_IMPL(equistride, Meta, m) {
    m.impl("total", total_meta);
    m.impl("total_backward", total_backward_meta);
}

TORCH_LIBRARY_IMPL(equistride, Autograd, m) {
    m.impl("total", total_autograd);
    m.impl("total_backward", total_backward_autograd);
}

} // namespace equistride
