#include "threads.h"

#include <ATen/Parallel.h>
#include <algorithm>
#include <cmath>

#ifdef _OPENMP
#include <omp.h>
#endif

// MKL keeps a number of its own, and torch's builds without MKL do not have this.
extern "C" int MKL_Set_Num_Threads_Local(int) __attribute__((weak));

namespace equistride {
namespace {

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

Threads::Threads(double work) : work_(work), outermost_(given == 0) {
    at::internal::lazy_init_num_threads(); // or this library's first at::parallel_for would, and take it all back
    before_ = at::get_num_threads();
    if (outermost_)
        given = before_;
    count_ = work < 2 * WORK_OF_A_THREAD || at::in_parallel_region() ? 1 : given;
    use(count_);
    if (MKL_Set_Num_Threads_Local)
        library_before_ = MKL_Set_Num_Threads_Local(count_ == 1 ? 1 : 0);
}

Threads::~Threads() {
    use(before_);
    if (MKL_Set_Num_Threads_Local)
        MKL_Set_Num_Threads_Local(library_before_);
    if (outermost_)
        given = 0;
}

std::int64_t Threads::grain(std::int64_t items) const {
    if (count_ == 1)
        return std::max<std::int64_t>(items, 1);
    return static_cast<std::int64_t>(std::ceil(static_cast<double>(items) * WORK_OF_A_THREAD / work_));
}

} // namespace equistride
