// Atoms that another process owns: how their features are kept up to date between the layers of a network.
#pragma once

#include "visibility.h"

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace equistride {

/// What an engine with domain decomposition lends to the operators `equistride::exchange` and `equistride::own` while a
/// model runs. Between exchanges a network works on the rows of own atoms alone.
class EQUISTRIDE_API Exchange {
public:
    virtual ~Exchange() = default;
    /// How many atoms, the first ones, are this process's own; -1 to give layers the rows of ghosts too.
    virtual std::int64_t owned() const { return -1; }
    /// Features [N, ...] with the rows of ghosts copied from the processes that own them, from rows of all atoms or of
    /// the own ones.
    virtual at::Tensor forward(const at::Tensor &features) = 0;
    /// The transpose: gradients [N, ...] of ghosts are added to those of their owners, and are zero thereafter.
    virtual at::Tensor backward(const at::Tensor &gradient) = 0;
};

/// What the calling thread's models use now; null for nothing.
Exchange *current_exchange();

/// The calling thread's models use `exchange` while this lives; without it (or with null) the operator changes nothing.
class EQUISTRIDE_API ExchangeScope {
public:
    explicit ExchangeScope(Exchange *exchange);
    ~ExchangeScope();
    ExchangeScope(const ExchangeScope &) = delete;
    ExchangeScope &operator=(const ExchangeScope &) = delete;

private:
    Exchange *before_;
};

} // namespace equistride
