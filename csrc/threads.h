// How many threads a piece of work is worth. Waking them costs microseconds on an idle computer; on a busy one, where a
// thread waits for its turn and the others spin meanwhile, milliseconds each time.
#pragma once
#include <cstdint>

namespace equistride {

/// Floating-point operations that are worth a thread: 1 to 3 ms.
constexpr double WORK_OF_A_THREAD = 1 << 26;
/// What moving a number to or from memory costs, in floating-point operations.
constexpr double MOVE = 16;

/// While it lives, what the calling thread starts, also in torch and its libraries, runs on all threads that torch was
/// given, if there is work for two of them, and on one otherwise. One inside another decides for itself.
class Threads {
public:
    explicit Threads(double work);
    ~Threads();
    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

    /// 1, or all.
    int count() const { return count_; }
    /// For at::parallel_for over so many items: no thread gets less than it is worth.
    std::int64_t grain(std::int64_t items) const;

private:
    double work_;
    int count_, before_, library_before_ = 0;
    bool outermost_;
};

} // namespace equistride
