// How many threads a piece of work is worth, and who shares it. Waking threads costs microseconds on an idle computer;
// on a busy one those that wait for their turn hold up the others, and OpenMP's spin meanwhile.
#pragma once
#include <cstdint>
#include <functional>

namespace equistride {

/// Floating-point operations that are worth a thread: about a millisecond.
constexpr double WORK_OF_A_THREAD = 1 << 25;
/// What moving a number to or from memory costs, in floating-point operations.
constexpr double MOVE = 16;

/// While it lives, what torch and its libraries do on the calling thread runs on one thread, and `share` on as many of
/// those that torch was given as the work is worth.
class Threads {
public:
    /// Of a range that begins and ends so.
    using Piece = std::function<void(std::int64_t, std::int64_t)>;

    explicit Threads(double work);
    ~Threads();
    Threads(const Threads &) = delete;
    Threads &operator=(const Threads &) = delete;

    int count() const { return count_; }

    /// Calls piece(from, until) for a range cut into so many pieces, as they come, on `count` threads of our own
    /// (csrc/team.h).
    void share(std::int64_t begin, std::int64_t end, std::int64_t pieces, const Piece &piece) const;
    /// Cut into a few pieces a thread, so that none waits long for another.
    void share(std::int64_t begin, std::int64_t end, const Piece &piece) const;

protected:
    /// Torch works on all of its threads where `team`.
    Threads(double work, bool team);

private:
    int count_, before_, library_before_ = 0;
    bool outermost_;
};

/// The same for a step that torch's own operators are a part of: they have a team of OpenMP's, which spins, where the
/// step takes so long that each of them is worth it.
class TorchThreads : Threads {
public:
    explicit TorchThreads(double work);
};

} // namespace equistride
