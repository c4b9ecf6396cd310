// The processes that share the atoms of a run. One process is the simplest case: its sums are its own.
#pragma once

#include "visibility.h"

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace equistride {

/// Every process must call these together. Tensors are in double precision on the CPU.
class EQUISTRIDE_API Communicator {
public:
    virtual ~Communicator() = default;

    virtual std::int64_t size() const { return 1; }
    virtual std::int64_t rank() const { return 0; }
    virtual double sum(double mine) const { return mine; }
    virtual double largest(double mine) const { return mine; }
    /// The sum over all processes of a tensor of any shape, the same bits on each.
    virtual at::Tensor sum(const at::Tensor &mine) const { return mine; }
    /// What the first process says.
    virtual double same(double value) const { return value; }
};

} // namespace equistride
