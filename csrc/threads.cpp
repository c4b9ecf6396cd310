#include "threads.h"
#include "team.h"

#include <ATen/Parallel.h>
#include <algorithm>

#ifdef _OPENMP
#include <omp.h>
#endif

// MKL keeps a number of its own, and torch's builds without MKL do not have this.
extern "C" int MKL_Set_Num_Threads_Local(int) __attribute__((weak));

namespace equistride {
namespace {

/// Of a step, in floating-point operations of its products, from which torch's operators are worth a team.
constexpr double WORK_OF_A_TEAM = 1LL << 32;
constexpr int PIECES_OF_A_THREAD = 4;

thread_local int given = 0; // to torch on this thread, as the outermost Threads found it; 0 where there is none

// at::set_num_threads() is for all threads of the process, and slow.
void use(int threads) {
#ifdef _OPENMP
    omp_set_num_threads(threads);
#else
    static_cast<void>(threads);
#endif
}

} // namespace

Threads::Threads(double work, bool team) : outermost_(given == 0) {
    at::internal::lazy_init_num_threads(); // or this library's first use of torch's threads would, and take it all back
    before_ = at::get_num_threads();
    if (outermost_)
        given = before_;
    const bool alone = at::in_parallel_region() || Team::inside();
    count_ = alone ? 1 : static_cast<int>(std::clamp(work / WORK_OF_A_THREAD, 1.0, static_cast<double>(given)));
    const int torchs = team && !alone ? given : 1;
    use(torchs);
    if (MKL_Set_Num_Threads_Local)
        library_before_ = MKL_Set_Num_Threads_Local(torchs == 1 ? 1 : 0);
}

Threads::Threads(double work) : Threads(work, false) {}

Threads::~Threads() {
    use(before_);
    if (MKL_Set_Num_Threads_Local)
        MKL_Set_Num_Threads_Local(library_before_);
    if (outermost_)
        given = 0;
}

void Threads::share(std::int64_t begin, std::int64_t end, std::int64_t pieces, const Piece &piece) const {
    if (begin >= end)
        return;
    pieces = std::clamp<std::int64_t>(pieces, 1, end - begin);
    if (count_ == 1 || pieces == 1) {
        piece(begin, end);
        return;
    }
    const auto edge = [&](std::int64_t k) { return begin + (end - begin) * k / pieces; };
    Team::get().work(count_, pieces, [&](std::int64_t k) { piece(edge(k), edge(k + 1)); });
}

void Threads::share(std::int64_t begin, std::int64_t end, const Piece &piece) const {
    share(begin, end, count_ == 1 ? 1 : PIECES_OF_A_THREAD * count_, piece);
}

TorchThreads::TorchThreads(double work) : Threads(work, work >= WORK_OF_A_TEAM) {}

} // namespace equistride
