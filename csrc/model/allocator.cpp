#include "model/allocator.h"

#include <cstdlib>
#include <string_view>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace equistride {
namespace {

bool left_to_the_user() {
    const char *choice = std::getenv("EQUISTRIDE_MALLOC");
    if (choice && std::string_view(choice) == "system")
        return true;
    for (const char *name : {"MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"})
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
        constexpr int LARGEST = 1 << 30;
        // glibc may refuse more than 32 MiB for a block on the heap
        if (!mallopt(M_MMAP_THRESHOLD, LARGEST))
            mallopt(M_MMAP_THRESHOLD, 32 << 20);
        mallopt(M_TRIM_THRESHOLD, LARGEST);
        return true;
    }();
    static_cast<void>(done);
#endif
}

} // namespace equistride
