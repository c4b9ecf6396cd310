// Threads of our own that share work: who asks works too, and never waits for one that has not begun. So a computer
// whose processors others use costs what they take, no more; a team of OpenMP's waits for its last member at every
// loop, and its members spin for milliseconds against it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>

namespace equistride {

class Team {
public:
    using Task = std::function<void(std::int64_t)>;

    /// That of this process; one that was forked begins anew.
    static Team &get();
    /// True on a thread that is at work for a team.
    static bool inside();

    /// Calls task(k) once for each k below `tasks`, on at most so many threads, the caller among them. What a task
    /// throws is thrown here. While the team works for another thread the caller works alone.
    void work(int threads, std::int64_t tasks, const Task &task);

private:
    Team() = default;
    void hire(int helpers);
    void help(int number);
    void take();

    std::mutex one_at_a_time_, mutex_;
    std::condition_variable begun_, done_;
    int hired_ = 0;
    // Of the work at hand, which is over where none is wanted; the first three are changed under the mutex alone.
    const Task *task_ = nullptr;
    int wanted_ = 0, active_ = 0;
    std::uint64_t number_ = 0;
    std::int64_t tasks_ = 0;
    std::atomic<std::int64_t> next_{0};
    std::exception_ptr error_;
};

} // namespace equistride
