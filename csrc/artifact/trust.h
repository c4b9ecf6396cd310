// The user's word for compiled artifacts, which are machine code.
#pragma once

#include "visibility.h"

#include <string>
#include <string_view>

namespace equistride {

/// The word for these bytes, from now on and in this process. It is given by an argument of the user's; no file brings
/// it.
EQUISTRIDE_API void trust_compiled(std::string_view bytes);

/// Raises c10::ValueError without the word for these bytes or EQUISTRIDE_TRUST_COMPILED=1, the word for all.
void require_trust(std::string_view bytes, const std::string &name);

} // namespace equistride
