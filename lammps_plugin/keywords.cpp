#include "keywords.h"

#include "host.h"

#include <algorithm>

namespace equistride::lammps {

Keywords::Keywords(const std::vector<std::string> &words,
                   const std::vector<std::pair<std::string, std::size_t>> &known) {
    for (std::size_t k = 0; k < words.size();) {
        const std::string &word = words[k];
        const auto entry =
            std::find_if(known.begin(), known.end(), [&](const auto &item) { return item.first == word; });
        if (entry == known.end()) {
            std::vector<std::string> names;
            for (const auto &item : known)
                names.push_back(item.first);
            TORCH_CHECK_VALUE(false, "the keyword ", word, " is not known; expected one of ", c10::Join(", ", names));
        }
        TORCH_CHECK_VALUE(!has(word), "the keyword ", word, " is there twice; give it once");
        TORCH_CHECK_VALUE(k + 1 < words.size(), "the keyword ", word, " has no value");
        TORCH_CHECK_VALUE(k + entry->second < words.size(), "the keyword ", word, " has too few values; expected ",
                          entry->second);
        const auto first = words.begin() + static_cast<std::ptrdiff_t>(k) + 1;
        found_[word] = {first, first + static_cast<std::ptrdiff_t>(entry->second)};
        k += 1 + entry->second;
    }
}

std::string Keywords::choice(const std::string &keyword, const std::vector<std::string> &choices,
                             const std::string &otherwise) const {
    return has(keyword) ? one_of(choices, keyword, value(keyword)) : otherwise;
}

} // namespace equistride::lammps
