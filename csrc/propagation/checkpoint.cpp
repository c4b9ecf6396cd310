#include "propagation/checkpoint.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace equistride {

Checkpoint::Checkpoint(const std::string &text) {
    std::istringstream words(text);
    std::string word;
    words >> word;
    const bool readable = std::all_of(word.begin(), word.end(), [](char c) { return c > ' ' && c < 127; });
    TORCH_CHECK_VALUE(word == HEAD,
                      "the checkpoint is not of this version of equistride; expected one that begins with ", HEAD,
                      "; found '", readable ? word.substr(0, 20) : "another kind of data",
                      "'; go on with the version that wrote it, or start anew");
    while (words >> word) {
        const std::size_t sign = word.find('=');
        TORCH_CHECK_VALUE(sign != std::string::npos, "the checkpoint is damaged; expected name=value; found '", word,
                          "'; use another one");
        values_[word.substr(0, sign)] = word.substr(sign + 1);
    }
}

std::string Checkpoint::text() const {
    std::string text = HEAD;
    for (const auto &[name, value] : values_)
        text += ' ' + name + '=' + value;
    return text;
}

void Checkpoint::set(const std::string &name, double value) {
    char digits[40];
    std::snprintf(digits, sizeof digits, "%a", value); // hexadecimal: exact
    values_[name] = digits;
}

const std::string &Checkpoint::find(const std::string &name) const {
    const auto place = values_.find(name);
    TORCH_CHECK_VALUE(place != values_.end(), "the checkpoint does not fit this run: it has no ", name,
                      "; set the run up as it was, with its guard or without");
    return place->second;
}

double Checkpoint::number(const std::string &name) const { return std::strtod(find(name).c_str(), nullptr); }

std::uint64_t Checkpoint::word(const std::string &name) const { return std::strtoull(find(name).c_str(), nullptr, 10); }

} // namespace equistride
