#include "host_memory.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <string_view>
#include <unistd.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace equistride {
namespace {

std::atomic<int> sharing{1};

bool left_to_the_user() {
    const char *choice = std::getenv("EQUISTRIDE_MALLOC");
    if (choice && std::string_view(choice) == "system")
        return true;
    for (const char *name : {"MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"})
        if (std::getenv(name))
            return true;
    return false;
}

} // namespace

void keep_freed_memory() {
#ifdef __GLIBC__
    static const bool done = [] {
        if (left_to_the_user())
            return true;
        mallopt(M_MMAP_MAX, 0); // all on the heap: a threshold above 32 MiB is refused
        mallopt(M_TRIM_THRESHOLD, -1);
        return true;
    }();
    static_cast<void>(done);
#endif
}

void return_freed_memory() {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

void share_computer(int processes) { sharing = std::max(processes, 1); }

std::int64_t allowance(std::int64_t allotted, std::int64_t memory) {
    const double share = double(memory) / sharing / double(std::int64_t(24) << 30);
    return std::int64_t(double(std::max<std::int64_t>(allotted, 0)) * std::min(share, 1.0));
}

std::int64_t allowance(std::int64_t allotted) {
    static const std::int64_t all = [] {
        std::int64_t least = std::int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
        for (const char *limit : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
            std::int64_t bytes = 0;
            if (std::ifstream(limit) >> bytes && bytes > 0) // "max" is no number
                least = std::min(least, bytes);
        }
        return least;
    }();
    return allowance(allotted, all);
}

} // namespace equistride
