// What is looked at in a pickle before torch reads it.
#pragma once

#include <string_view>

namespace equistride {

/// Whether a pickle has the bytes that its instructions take, as far as torch would read them, and names no more known
/// values than it has bytes. torch makes room for a text before it reads it, reads a line on and on until it ends, and
/// fills its table of known values, 16 bytes each, up to any place that is named.
bool holds_what_it_names(std::string_view pickle);

} // namespace equistride
