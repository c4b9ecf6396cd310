// What a run needs to go on, beside the atoms: named values in a line of text, which keep every bit.
#pragma once

#include "visibility.h"

#include <cstdint>
#include <map>
#include <string>

namespace equistride {

class EQUISTRIDE_API Checkpoint {
public:
    /// The text begins with this; a version has it that knows the same names.
    static constexpr char HEAD[] = "equistride-run-3";

    Checkpoint() = default;
    /// Raises c10::ValueError for a text that text() of this version did not write.
    explicit Checkpoint(const std::string &text);
    std::string text() const;

    void set(const std::string &name, double value);
    void set(const std::string &name, std::uint64_t value) { values_[name] = std::to_string(value); }
    bool has(const std::string &name) const { return values_.count(name) > 0; }
    /// Raise c10::ValueError where there is no such name.
    double number(const std::string &name) const;
    std::uint64_t word(const std::string &name) const;

private:
    const std::string &find(const std::string &name) const;

    std::map<std::string, std::string> values_;
};

} // namespace equistride
