#include "artifact/crc32.h"

#include <array>
#include <cstddef>

namespace equistride {

std::uint32_t crc32(std::string_view bytes) {
    static const auto tables = [] { // [bytes that follow][byte]
        std::array<std::array<std::uint32_t, 256>, 8> made{};
        for (std::uint32_t k = 0; k < 256; k++) {
            std::uint32_t value = k;
            for (int bit = 0; bit < 8; bit++)
                value = value >> 1 ^ (0xedb88320U & (0U - (value & 1)));
            made[0][k] = value;
        }
        for (std::size_t more = 1; more < 8; more++)
            for (std::size_t k = 0; k < 256; k++)
                made[more][k] = made[more - 1][k] >> 8 ^ made[0][made[more - 1][k] & 0xff];
        return made;
    }();
    const auto *data = reinterpret_cast<const unsigned char *>(bytes.data());
    std::size_t size = bytes.size();
    std::uint32_t value = ~0U;
    for (; size >= 8; data += 8, size -= 8) {
        std::uint32_t next = 0;
        for (std::size_t k = 0; k < 8; k++)
            next ^= tables[7 - k][data[k] ^ (k < 4 ? value >> (8 * k) & 0xff : 0)];
        value = next;
    }
    for (; size > 0; data++, size--)
        value = value >> 8 ^ tables[0][(value ^ *data) & 0xff];
    return ~value;
}

} // namespace equistride
