// The threads of a block as fibers, resumed in turn until all of them wait or are done.
#include "cuda_emulation.h"

#include <algorithm>
#include <csetjmp>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <ucontext.h>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

namespace {

constexpr size_t STACK = size_t(1) << 17, WARP = 32;

enum class State { ready, at_warp, at_block, done };

struct Copy {
    void *to;
    const void *from;
    int bytes;
};

struct Fiber {
    ucontext_t start;
    jmp_buf resume;
    std::unique_ptr<char[]> stack = std::make_unique<char[]>(STACK);
    bool begun = false;
    State state = State::ready;
    const char *what = "";
    unsigned line = 0;
    uint64_t gives = 0;
    std::vector<std::vector<Copy>> groups; // of copies that were begun
    std::vector<Copy> begun_copies;        // of no group yet
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<uint64_t> given; // what the lanes of each warp gave when they last met
size_t current = 0;
jmp_buf scheduler;
const std::function<void()> *thread_body = nullptr;
int64_t order = 0, launches = 0;
int64_t misplaced = 0,
        unfinished = 0; // copies to or from a place that is no multiple of their size; threads that end first
std::mutex one_launch;

struct alignas(128) Line {
    char bytes[128];
};
std::vector<Line> memory;
int64_t limit = 227 << 10; // of an H200

void yield() {
    if (_setjmp(fibers[current]->resume) == 0)
        _longjmp(scheduler, 1);
}

void live() {
    for (;;) {
        (*thread_body)();
        fibers[current]->state = State::done;
        unfinished += !fibers[current]->groups.empty() || !fibers[current]->begun_copies.empty();
        yield();
    }
}

void resume(size_t thread) {
    current = thread;
    threadIdx = dim3(unsigned(thread));
    Fiber &fiber = *fibers[thread];
    if (_setjmp(scheduler) != 0)
        return;
    if (fiber.begun)
        _longjmp(fiber.resume, 1);
    fiber.begun = true;
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = STACK;
    fiber.start.uc_link = nullptr;
    makecontext(&fiber.start, live, 0);
    setcontext(&fiber.start);
}

std::string describe(size_t thread) {
    const Fiber &fiber = *fibers[thread];
    const std::string where = fiber.state == State::done
                                  ? "is done"
                                  : std::string("waits at ") + fiber.what + " in line " + std::to_string(fiber.line);
    return "block " + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", thread " +
           std::to_string(thread) + " " + where;
}

[[noreturn]] void fail(size_t a, size_t b) {
    const std::string says = "threads do not meet: " + describe(a) + ", " + describe(b);
    fibers.clear();
    throw std::runtime_error(says);
}

// Whether the lanes of a warp have met; an error where they wait for what cannot come.
bool release_warp(size_t begin, size_t end) {
    size_t waiting = end;
    for (size_t t = begin; t < end; ++t)
        if (fibers[t]->state == State::at_warp)
            waiting = t;
    if (waiting == end)
        return false;
    for (size_t t = begin; t < end; ++t)
        if (fibers[t]->state != State::at_warp || fibers[t]->what != fibers[waiting]->what ||
            fibers[t]->line != fibers[waiting]->line)
            fail(waiting, t);
    for (size_t t = begin; t < end; ++t) {
        given[t] = fibers[t]->gives;
        fibers[t]->state = State::ready;
    }
    return true;
}

bool release_block(size_t threads) {
    size_t waiting = threads, elsewhere = threads;
    for (size_t t = 0; t < threads; ++t) {
        if (fibers[t]->state == State::at_block)
            waiting = t;
        else
            elsewhere = t;
    }
    if (waiting == threads)
        return false;
    for (size_t t = 0; t < threads; ++t) {
        if (elsewhere != threads || fibers[t]->line != fibers[waiting]->line)
            fail(waiting, elsewhere != threads ? elsewhere : t);
    }
    for (size_t t = 0; t < threads; ++t)
        fibers[t]->state = State::ready;
    return true;
}

void run_block(size_t threads, std::vector<size_t> &turns, std::mt19937 &random) {
    for (size_t t = 0; t < threads; ++t)
        fibers[t]->state = State::ready;
    for (bool released = true; released;) {
        if (order > 1)
            std::shuffle(turns.begin(), turns.end(), random);
        for (const size_t t : turns)
            if (fibers[t]->state == State::ready)
                resume(t);
        released = false;
        for (size_t begin = 0; begin < threads; begin += WARP)
            released = release_warp(begin, std::min(begin + WARP, threads)) || released;
        if (!released)
            released = release_block(threads);
    }
}

} // namespace

int lane() { return int(current % WARP); }
void *memory_of_block() { return memory.data(); }

void begin_copy(void *to, const void *from, int bytes) {
    for (const uintptr_t place : {reinterpret_cast<uintptr_t>(to), reinterpret_cast<uintptr_t>(from)})
        misplaced += place % uintptr_t(bytes) != 0;
    fibers[current]->begun_copies.push_back({to, from, bytes});
}

void end_group() {
    Fiber &fiber = *fibers[current];
    fiber.groups.push_back(std::move(fiber.begun_copies));
    fiber.begun_copies.clear();
}

void wait_but(int groups) {
    std::vector<std::vector<Copy>> &all = fibers[current]->groups;
    for (; int(all.size()) > groups; all.erase(all.begin()))
        for (const Copy &copy : all.front())
            std::memcpy(copy.to, copy.from, size_t(copy.bytes));
}

int64_t memory_limit() { return limit; }

const uint64_t *meet(const char *what, unsigned mask, uint64_t gives, const Location &at) {
    Fiber &fiber = *fibers[current];
    fiber.state = State::at_warp;
    fiber.what = mask == ~0u ? what : "a call with a mask that leaves lanes out, which this emulation lacks,";
    fiber.line = at.line();
    fiber.gives = gives;
    yield();
    return given.data() + current / WARP * WARP;
}

void wait_for_block(const Location &at) {
    Fiber &fiber = *fibers[current];
    fiber.state = State::at_block;
    fiber.what = "__syncthreads";
    fiber.line = at.line();
    yield();
}

void run(dim3 grid, dim3 block, const std::function<void()> &thread, int64_t bytes) {
    const std::lock_guard guard(one_launch);
    if (bytes > limit)
        throw std::runtime_error("a block asks for " + std::to_string(bytes) + " bytes of shared memory");
    ++launches;
    memory.resize(size_t(bytes) / sizeof(Line) + 1);
    const size_t threads = block.x, blocks = size_t(grid.x) * grid.y;
    while (fibers.size() < threads)
        fibers.push_back(std::make_unique<Fiber>());
    given.assign(fibers.size() + WARP, 0);
    gridDim = grid;
    blockDim = block;
    thread_body = &thread;
    std::vector<size_t> turns(threads);
    std::iota(turns.begin(), turns.end(), size_t(0));
    if (order == 1)
        std::reverse(turns.begin(), turns.end());
    std::mt19937 random{unsigned(order)};
    for (size_t k = 0; k < blocks; ++k) {
        const size_t at = order == 1 ? blocks - 1 - k : k;
        blockIdx = dim3(unsigned(at % grid.x), unsigned(at / grid.x));
        std::memset(memory.data(), 0xff, size_t(bytes));
        run_block(threads, turns, random);
    }
    const std::string faults = misplaced > 0    ? "a copy begins where its size does not allow it"
                               : unfinished > 0 ? "a thread ends before the copies that it began"
                                                : "";
    misplaced = unfinished = 0;
    if (!faults.empty())
        throw std::runtime_error(faults);
}

} // namespace emulation

// One lane passes a barrier by, which no warp may.
static void uneven() {
    if (threadIdx.x != 3)
        __syncwarp();
}

TORCH_LIBRARY_FRAGMENT(equistride_emulated, m) {
    // 0: threads and blocks in their order, 1: in the reverse, above: threads in a random order of this seed.
    m.def("set_order(int order) -> ()", [](int64_t order) { emulation::order = order; });
    m.def("set_memory(int bytes) -> ()", [](int64_t bytes) { emulation::limit = bytes; });
    // Kernels launched so far.
    m.def("launches() -> int", [] { return emulation::launches; });
    m.def("run_uneven() -> ()", [] { equistride::launch(uneven, 1, 64, nullptr); });
}
