// The digest of a file: SHA-256 of every record, written beside them.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>

namespace equistride {

/// The record `extra/digest.json`: {"algorithm": "sha256", "records": {name: hexadecimal}}. It names every record but
/// itself and those that torch's writer makes of the others.
class Digest {
public:
    static constexpr char RECORD[] = "extra/digest.json";

    /// Raises c10::ValueError where the text is no digest. `name` is the file's, for messages.
    Digest(const std::string &text, const std::string &name);

    /// Raises c10::ValueError where this record is not the one that was written, or was not there.
    void check(const std::string &record, std::string_view content);
    /// Raises c10::ValueError where a record is gone that was there.
    void check_complete() const;

private:
    std::string name_;
    std::map<std::string, std::string> expected_;
    std::set<std::string> seen_;
};

} // namespace equistride
