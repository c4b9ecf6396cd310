// The processes that share the atoms of a run. One process is the simplest case: its sums are its own.
#pragma once

#include "visibility.h"

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <string>

namespace equistride {

/// Every process must call these together. Tensors are in double precision on the CPU.
class EQUISTRIDE_API Communicator {
public:
    virtual ~Communicator() = default;

    /// That of one process.
    static const Communicator &self() {
        static const Communicator one;
        return one;
    }

    virtual std::int64_t size() const { return 1; }
    virtual std::int64_t rank() const { return 0; }
    virtual double sum(double mine) const { return mine; }
    virtual double largest(double mine) const { return mine; }
    /// The sum over all processes of a tensor of any shape, the same bits on each.
    virtual at::Tensor sum(const at::Tensor &mine) const { return mine; }
    /// What the first process says.
    virtual double same(double value) const { return value; }
    /// The first process's sentence that is not empty.
    virtual std::string first(std::string sentence) const { return sentence; }
};

/// Do what may fail on some of the processes: a c10::ValueError of one is raised on all.
template <class Body> void together(const Communicator &communicator, Body body) {
    std::string sentence;
    try {
        body();
    } catch (const c10::ValueError &error) {
        if (communicator.size() == 1)
            throw;
        sentence = error.what_without_backtrace();
    }
    sentence = communicator.first(std::move(sentence));
    if (!sentence.empty())
        C10_THROW_ERROR(ValueError, sentence);
}

} // namespace equistride
