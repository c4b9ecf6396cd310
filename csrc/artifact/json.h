// A small strict JSON reader (RFC 8259): an artifact's metadata need no library.
#pragma once

#include "visibility.h"

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace equistride::json {

class Value;
using Array = std::vector<Value>;
using Object = std::map<std::string, Value>;

/// One JSON value. Accessors raise c10::ValueError where the value is of another type;
/// their `where` names the place in the message ("metadata.json, key cutoff").
class EQUISTRIDE_API Value {
public:
    using Data = std::variant<std::nullptr_t, bool, double, std::string, Array, Object>;

    Value() : data_(nullptr) {}
    explicit Value(Data data) : data_(std::move(data)) {}

    bool is_null() const { return std::holds_alternative<std::nullptr_t>(data_); }
    bool is_string() const { return std::holds_alternative<std::string>(data_); }
    bool is_array() const { return std::holds_alternative<Array>(data_); }

    bool boolean(const std::string &where) const;
    double number(const std::string &where) const;
    std::int64_t integer(const std::string &where) const;
    const std::string &string(const std::string &where) const;
    const Array &array(const std::string &where) const;
    const Object &object(const std::string &where) const;

    /// All numbers in nested arrays, row by row, e.g. of [[1, 2], [3, 4]].
    std::vector<double> numbers(const std::string &where) const;

private:
    const char *type_name() const;
    Data data_;
};

/// Parse a whole document; raises c10::ValueError that names `where`, the line and the column.
EQUISTRIDE_API Value parse(std::string_view text, const std::string &where);

} // namespace equistride::json
