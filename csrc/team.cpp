#include "team.h"

#include <csignal>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

namespace equistride {
namespace {

thread_local bool at_work = false;

} // namespace

Team &Team::get() {
    static std::mutex guard;
    static Team *team = nullptr; // never destroyed: helpers wait in it when the process ends
    static pid_t owner = 0;
    const std::lock_guard lock(guard);
    if (owner != getpid()) {
        team = new Team;
        owner = getpid();
    }
    return *team;
}

bool Team::inside() { return at_work; }

void Team::work(int threads, std::int64_t tasks, const Task &task) {
    const std::unique_lock alone(one_at_a_time_, std::try_to_lock);
    if (threads <= 1 || tasks <= 1 || at_work || !alone.owns_lock()) {
        for (std::int64_t k = 0; k < tasks; ++k)
            task(k);
        return;
    }
    hire(threads - 1);
    {
        const std::lock_guard lock(mutex_);
        task_ = &task;
        tasks_ = tasks;
        wanted_ = threads - 1;
        next_ = 0;
        ++number_;
    }
    begun_.notify_all();
    at_work = true;
    take();
    at_work = false;
    std::unique_lock lock(mutex_);
    wanted_ = 0; // who has not begun finds nothing; who has may still read the task
    done_.wait(lock, [&] { return active_ == 0; });
    if (const std::exception_ptr error = std::exchange(error_, nullptr))
        std::rethrow_exception(error);
}

/// Signals stay with the threads that the program began with.
void Team::hire(int helpers) {
    if (hired_ >= helpers)
        return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        for (; hired_ < helpers; ++hired_)
            std::thread(&Team::help, this, hired_).detach();
    } catch (const std::system_error &) { // no more threads are to be had: fewer work
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Team::help(int number) {
    at_work = true;
    std::uint64_t seen = 0;
    std::unique_lock lock(mutex_);
    for (;;) {
        begun_.wait(lock, [&] { return number_ != seen && number < wanted_; });
        seen = number_;
        ++active_;
        lock.unlock();
        take();
        lock.lock();
        if (--active_ == 0)
            done_.notify_one();
    }
}

void Team::take() {
    for (std::int64_t k = next_++; k < tasks_; k = next_++)
        try {
            (*task_)(k);
        } catch (...) {
            const std::lock_guard lock(mutex_);
            if (!error_)
                error_ = std::current_exception();
            next_ = tasks_;
        }
}

} // namespace equistride
