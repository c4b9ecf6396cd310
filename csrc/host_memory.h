// A model allocates and frees the same large arrays at every step.
#pragma once
#include "visibility.h"

#include <cstdint>

namespace equistride {

/// Tell glibc, once, to keep freed memory instead of giving it back to the system and clearing it anew at the next
/// step: a step is 10 to 20 % faster and resident memory stays flat, at its largest. Does nothing where
/// EQUISTRIDE_MALLOC=system is set, where the user tunes glibc's malloc by its own variables, or with another C
/// library.
void keep_freed_memory();

/// Give what is free now back to the system, once. Does nothing with another C library.
void return_freed_memory();

/// Say how many processes like this one share the computer; 1 until told.
EQUISTRIDE_API void share_computer(int processes);

/// What may be spent of bytes that were allotted with 24 GiB of memory in mind: less where this process's share is
/// less.
std::int64_t allowance(std::int64_t allotted, std::int64_t memory);
/// The same in the computer's memory, or what of it the process's control group may use.
std::int64_t allowance(std::int64_t allotted);

} // namespace equistride
