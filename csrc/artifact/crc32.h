// The checksum of zip and zlib (CRC-32), eight bytes at a time.
#pragma once

#include <cstdint>
#include <string_view>

namespace equistride {

std::uint32_t crc32(std::string_view bytes);

} // namespace equistride
