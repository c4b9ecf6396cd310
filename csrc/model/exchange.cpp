#include "model/exchange.h"
#include "operators.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <vector>

namespace equistride {
namespace {

thread_local Exchange *current = nullptr;

at::Tensor own(const at::Tensor &features) {
    return current && current->owned() >= 0 ? features.narrow(0, 0, current->owned()).clone() : features.clone();
}

at::Tensor exchange(const at::Tensor &features) { return current ? current->forward(features) : features.clone(); }

// Autograd may run the backward on another thread, so the forward notes who exchanged; 0 is nobody. A compiled program
// runs both on the caller's thread and says so (EXCHANGE_HERE of artifact/aoti.py).
constexpr std::int64_t HERE = -1;

at::Tensor exchange_backward(const at::Tensor &gradient, std::int64_t exchanger) {
    auto *noted =
        exchanger == HERE ? current : reinterpret_cast<Exchange *>(exchanger); // NOLINT(performance-no-int-to-ptr)
    return noted ? noted->backward(gradient) : gradient.clone();
}

at::Tensor like(const at::Tensor &tensor) { return at::empty_like(tensor); }
at::Tensor like_gradient(const at::Tensor &tensor, std::int64_t) { return at::empty_like(tensor); }

// Linear, so that its derivative has no derivative to speak of: exchanging the gradient of the gradient goes forward.
class ExchangeBackward : public torch::autograd::Function<ExchangeBackward> {
public:
    static at::Tensor forward(torch::autograd::AutogradContext *, const at::Tensor &gradient, std::int64_t exchanger) {
        static const auto op =
            find_operator<at::Tensor(const at::Tensor &, std::int64_t)>("equistride::exchange_backward");
        const at::AutoDispatchBelowADInplaceOrView below;
        return op.call(gradient, exchanger);
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *,
                                                   const torch::autograd::variable_list &grads) {
        static const auto op = find_operator<at::Tensor(const at::Tensor &)>("equistride::exchange");
        return {op.call(grads[0]), at::Tensor()};
    }
};

class ExchangeForward : public torch::autograd::Function<ExchangeForward> {
public:
    static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &features) {
        static const auto op = find_operator<at::Tensor(const at::Tensor &)>("equistride::exchange");
        context->saved_data["exchanger"] = reinterpret_cast<std::int64_t>(current);
        context->saved_data["rows"] = features.sym_size(0);
        const at::AutoDispatchBelowADInplaceOrView below;
        return op.call(features);
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                   const torch::autograd::variable_list &grads) {
        static const auto op =
            find_operator<at::Tensor(const at::Tensor &, std::int64_t)>("equistride::exchange_backward");
        const at::Tensor all = op.call(grads[0], context->saved_data["exchanger"].toInt());
        const c10::SymInt rows = context->saved_data["rows"].toSymInt();
        return {all.sym_size(0) == rows ? all : all.narrow_symint(0, 0, rows)};
    }
};

class Own : public torch::autograd::Function<Own> {
public:
    static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &features) {
        static const auto op = find_operator<at::Tensor(const at::Tensor &)>("equistride::own");
        context->saved_data["rows"] = features.size(0);
        const at::AutoDispatchBelowADInplaceOrView below;
        return op.call(features);
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                   const torch::autograd::variable_list &grads) {
        const std::int64_t missing = context->saved_data["rows"].toInt() - grads[0].size(0);
        if (missing == 0)
            return {grads[0]};
        std::vector<std::int64_t> shape = grads[0].sizes().vec();
        shape[0] = missing;
        return {at::cat({grads[0], at::zeros(shape, grads[0].options())})};
    }
};

at::Tensor own_autograd(const at::Tensor &features) { return Own::apply(features); }
at::Tensor exchange_autograd(const at::Tensor &features) { return ExchangeForward::apply(features); }
at::Tensor exchange_backward_autograd(const at::Tensor &gradient, std::int64_t exchanger) {
    return ExchangeBackward::apply(gradient, exchanger);
}

} // namespace

Exchange *current_exchange() { return current; }

ExchangeScope::ExchangeScope(Exchange *exchange) : before_(current) { current = exchange; }
ExchangeScope::~ExchangeScope() { current = before_; }

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    m.def("own(Tensor features) -> Tensor");
    m.def("exchange(Tensor features) -> Tensor");
    m.def("exchange_backward(Tensor gradient, int exchanger) -> Tensor");
}

TORCH_LIBRARY_IMPL(equistride, CompositeExplicitAutograd, m) {
    m.impl("own", own);
    m.impl("exchange", exchange);
    m.impl("exchange_backward", exchange_backward);
}

TORCH_LIBRARY_IMPL(equistride, Meta, m) {
    m.impl("own", like);
    m.impl("exchange", like);
    m.impl("exchange_backward", like_gradient);
}

TORCH_LIBRARY_IMPL(equistride, Autograd, m) {
    m.impl("own", own_autograd);
    m.impl("exchange", exchange_autograd);
    m.impl("exchange_backward", exchange_backward_autograd);
}

} // namespace equistride
