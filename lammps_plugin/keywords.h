// Keywords with their values, as a style or fix is told them.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace equistride::lammps {

class Keywords {
public:
    /// Raises c10::ValueError for words that are no keyword, stand twice, or have too few values after them.
    /// @param known  each keyword with the number of its values
    Keywords(const std::vector<std::string> &words, const std::vector<std::pair<std::string, std::size_t>> &known);

    bool has(const std::string &keyword) const { return found_.count(keyword) > 0; }
    const std::string &value(const std::string &keyword, std::size_t k = 0) const { return found_.at(keyword).at(k); }
    /// The value where the keyword is there; raises c10::ValueError where it is none of the choices.
    std::string choice(const std::string &keyword, const std::vector<std::string> &choices,
                       const std::string &otherwise) const;

private:
    std::map<std::string, std::vector<std::string>> found_;
};

/// Whether the user trusts compiled models, which is known before a model is read.
inline bool trusted(const Keywords &given) { return given.choice("trust", {"yes", "no"}, "no") == "yes"; }

} // namespace equistride::lammps
