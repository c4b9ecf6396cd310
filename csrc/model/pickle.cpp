#include "model/pickle.h"

#include <algorithm>
#include <cstdint>

namespace equistride {
namespace {

/// A number of so many bytes, the lowest first.
std::uint64_t number(std::string_view bytes) {
    std::uint64_t found = 0;
    for (std::size_t k = bytes.size(); k > 0; k--)
        found = found << 8 | static_cast<unsigned char>(bytes[k - 1]);
    return found;
}

} // namespace

// Instructions as torch's unpickler knows them; at another one it ends with an error, and so does this.
bool holds_what_it_names(std::string_view pickle) {
    const std::uint64_t size = pickle.size();
    std::uint64_t largest = 0; // place in the table of known values
    bool whole = true;
    const auto take = [&](std::uint64_t bytes) {
        whole = whole && bytes <= pickle.size();
        const std::string_view taken = pickle.substr(0, std::min<std::uint64_t>(bytes, pickle.size()));
        pickle.remove_prefix(taken.size());
        return taken;
    };
    while (!pickle.empty() && whole) {
        switch (static_cast<unsigned char>(take(1)[0])) {
        case 'q': // BINPUT
            largest = std::max(largest, number(take(1)));
            break;
        case 'r': // LONG_BINPUT
            largest = std::max(largest, number(take(4)));
            break;
        case 'K':  // BININT1
        case 'h':  // BINGET
        case 0x80: // PROTO
            take(1);
            break;
        case 'M': // BININT2
            take(2);
            break;
        case 'J': // BININT
        case 'j': // LONG_BINGET
            take(4);
            break;
        case 'G': // BINFLOAT
            take(8);
            break;
        case 0x8a: // LONG1
            take(number(take(1)));
            break;
        case 'X': // BINUNICODE
            take(number(take(4)));
            break;
        case 'c': // GLOBAL: a module and a name, a line each
            for (int line = 0; line < 2; line++)
                take(std::min(pickle.find('\n'), pickle.size()) + 1); // beyond the end where there is none
            break;
        case '(': // what takes nothing from the stream
        case ')':
        case ']':
        case '}':
        case 'N':
        case 'Q':
        case 'R':
        case 'a':
        case 'b':
        case 'd':
        case 'e':
        case 'l':
        case 's':
        case 't':
        case 'u':
        case 0x81:
        case 0x85:
        case 0x86:
        case 0x87:
        case 0x88:
        case 0x89:
            break;
        default: // STOP, or unknown
            return whole && largest <= size;
        }
    }
    return whole && largest <= size;
}

} // namespace equistride
