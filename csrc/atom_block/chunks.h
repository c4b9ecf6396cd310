// A dozen atoms at a time, which share what is read of a matrix.
#pragma once
#include "threads.h"

#include <algorithm>

namespace equistride {

constexpr int64_t CHUNK = 12; // atoms: one tile of rows

/// Calls f(first atom, count) for chunks of the atoms.
template <class F> void chunks(int64_t atoms, double work, F &&f) {
    const Threads threads(work);
    threads.share(0, atoms, [&](int64_t begin, int64_t end) {
        for (; begin < end; begin += CHUNK)
            f(begin, std::min(CHUNK, end - begin));
    });
}

} // namespace equistride
