// SHA-256 (FIPS 180-4), by the processor's instructions for it where it has them.
#pragma once

#include "visibility.h"

#include <string>
#include <string_view>

namespace equistride {

/// In hexadecimal, as `sha256sum` prints it.
EQUISTRIDE_API std::string sha256(std::string_view bytes);

} // namespace equistride
