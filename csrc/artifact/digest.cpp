#include "artifact/digest.h"

#include "artifact/json.h"
#include "artifact/sha256.h"

#include <c10/util/Exception.h>

namespace equistride {
namespace {

constexpr char AGAIN[] = "; take it from where it was exported, or export the model again";

} // namespace

Digest::Digest(const std::string &text, const std::string &name) : name_(name) {
    const std::string where = std::string(RECORD) + " of " + name;
    const json::Value document = json::parse(text, where);
    const json::Object &facts = document.object(where);
    const auto algorithm = facts.find("algorithm"), records = facts.find("records");
    TORCH_CHECK_VALUE(algorithm != facts.end() && records != facts.end() && algorithm->second.string(where) == "sha256",
                      where, " is no digest; expected the algorithm sha256 and the records", AGAIN);
    for (const auto &[record, value] : records->second.object(where))
        expected_[record] = value.string(where);
}

void Digest::check(const std::string &record, std::string_view content) {
    if (record == RECORD || record.starts_with(".data/"))
        return;
    const auto expected = expected_.find(record);
    TORCH_CHECK_VALUE(expected != expected_.end(), name_, " was changed after it was written: it has the record ",
                      record, ", which its digest does not name", AGAIN);
    const std::string found = sha256(content);
    TORCH_CHECK_VALUE(found == expected->second, name_, " is damaged or was changed after it was written: the record ",
                      record, " is another; expected the SHA-256 ", expected->second, "; found ", found, AGAIN);
    seen_.insert(record);
}

void Digest::check_complete() const {
    for (const auto &entry : expected_)
        TORCH_CHECK_VALUE(seen_.contains(entry.first), name_, " was changed after it was written: the record ",
                          entry.first, ", which its digest names, is gone", AGAIN);
}

} // namespace equistride
