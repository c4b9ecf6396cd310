// What statistics count.
#pragma once

#include <chrono>

namespace equistride {

/// Seconds since some moment.
inline double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

} // namespace equistride
