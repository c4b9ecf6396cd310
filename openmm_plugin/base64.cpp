#include "base64.h"

#include <openmm/OpenMMException.h>

#include <array>
#include <cstdint>

namespace equistride {
namespace {

constexpr std::string_view ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::array<std::int8_t, 256> make_values() {
    std::array<std::int8_t, 256> values;
    values.fill(-1);
    for (std::size_t i = 0; i < ALPHABET.size(); i++)
        values[static_cast<unsigned char>(ALPHABET[i])] = static_cast<std::int8_t>(i);
    return values;
}

} // namespace

std::string base64_encode(std::string_view bytes) {
    std::string text;
    text.reserve((bytes.size() + 2) / 3 * 4);
    for (std::size_t i = 0; i < bytes.size(); i += 3) {
        const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
        std::uint32_t group = 0;
        for (std::size_t k = 0; k < 3; k++)
            group = group << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0u);
        for (std::size_t k = 0; k < 4; k++)
            text += k <= count ? ALPHABET[group >> (18 - 6 * k) & 63] : '=';
    }
    return text;
}

std::string base64_decode(std::string_view text) {
    static const std::array<std::int8_t, 256> VALUES = make_values();
    while (!text.empty() && text.back() == '=')
        text.remove_suffix(1);
    std::string bytes;
    bytes.reserve(text.size() / 4 * 3 + 2);
    std::uint32_t group = 0;
    int bits = 0;
    for (const char c : text) {
        const int value = VALUES[static_cast<unsigned char>(c)];
        if (value < 0)
            throw OpenMM::OpenMMException("the model inside the XML is damaged: it is no base64; write the XML again");
        group = group << 6 | static_cast<std::uint32_t>(value);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            bytes += static_cast<char>(group >> bits & 0xFF);
        }
    }
    return bytes;
}

} // namespace equistride
