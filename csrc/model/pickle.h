// What is looked at in a pickle before torch reads it.
#pragma once

#include <cstdint>
#include <string_view>

namespace equistride {

/// The largest place in the table of known values that the instructions of a pickle name, 0 for none, as far as torch
/// would read them: it fills the table up to there, with 16 bytes a place.
std::uint64_t largest_place(std::string_view pickle);

} // namespace equistride
