// Base64 (RFC 4648): how a model file travels inside XML.
#pragma once

#include <string>
#include <string_view>

namespace equistride {

std::string base64_encode(std::string_view bytes);
/// Raises OpenMM::OpenMMException where the text is no base64.
std::string base64_decode(std::string_view text);

} // namespace equistride
