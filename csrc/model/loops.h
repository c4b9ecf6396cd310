// Loops of a model's code that do not end.
#pragma once

#include "visibility.h"

#include <torch/csrc/jit/api/compilation_unit.h>

#include <chrono>
#include <cstdint>

namespace equistride {

/// Makes each loop of all functions of the unit count its turns. Before the first call of any of them, and for code
/// that is not saved again.
void count_turns(torch::jit::CompilationUnit &unit);

/// While it lives, a loop of a model's code that this thread runs raises c10::ValueError after MOST_TURNS of all loops
/// together, or what an outer bound has left.
class EQUISTRIDE_API LoopBound {
public:
    /// A loop over 10^5 atoms in each of ten layers is half of it. One that computes next to nothing a turn has then
    /// taken six seconds, and autograd's memory of it 2.6 GB.
    static constexpr std::int64_t MOST_TURNS = 2'000'000;

    LoopBound();
    ~LoopBound();
    LoopBound(const LoopBound &) = delete;
    LoopBound &operator=(const LoopBound &) = delete;

private:
    std::int64_t before_;
};

/// While it lives, loops that this thread runs end as well when a time is over: that of a file's self-test, 30 s or
/// the seconds in the environment's EQUISTRIDE_SELF_TEST_SECONDS.
class LoopDeadline {
public:
    LoopDeadline();
    ~LoopDeadline();
    LoopDeadline(const LoopDeadline &) = delete;
    LoopDeadline &operator=(const LoopDeadline &) = delete;

private:
    std::chrono::steady_clock::time_point before_;
};

} // namespace equistride
