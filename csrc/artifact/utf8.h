// Messages may quote a damaged file; whoever reads them expects UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace equistride {

/// The text with '?' for each byte that is no part of a UTF-8 character.
std::string valid_utf8(std::string_view text);

} // namespace equistride
