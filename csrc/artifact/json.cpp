#include "artifact/json.h"

#include <c10/util/Exception.h>

#include <charconv>
#include <cmath>

namespace equistride::json {
namespace {

constexpr int MAX_DEPTH = 64;

class Parser {
public:
    Parser(std::string_view text, const std::string &where) : text_(text), where_(where) {}

    Value document() {
        Value value = element(0);
        skip_space();
        if (at_ < text_.size())
            fail("text after the end of the document");
        return value;
    }

private:
    [[noreturn]] void fail(const std::string &what) const {
        std::size_t line = 1, column = 1;
        for (std::size_t i = 0; i < at_ && i < text_.size(); i++) {
            column++;
            if (text_[i] == '\n')
                line++, column = 1;
        }
        C10_THROW_ERROR(ValueError, c10::str(where_, " is not valid JSON: ", what, " at line ", line, ", column ",
                                             column, "; write the artifact again"));
    }

    void skip_space() {
        while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos)
            at_++;
    }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    bool accept(char c) {
        if (peek() != c || at_ >= text_.size())
            return false;
        at_++;
        return true;
    }

    void expect_word(std::string_view word) {
        if (text_.substr(at_, word.size()) != word)
            fail("an unknown word");
        at_ += word.size();
    }

    Value element(int depth) {
        if (depth > MAX_DEPTH)
            fail("nesting is too deep");
        skip_space();
        switch (peek()) {
        case '{':
            return object(depth);
        case '[':
            return array(depth);
        case '"':
            return Value(string());
        case 't':
            expect_word("true");
            return Value(true);
        case 'f':
            expect_word("false");
            return Value(false);
        case 'n':
            expect_word("null");
            return Value();
        default:
            return Value(number());
        }
    }

    Value object(int depth) {
        Object members;
        at_++;
        skip_space();
        if (accept('}'))
            return Value(std::move(members));
        do {
            skip_space();
            if (peek() != '"')
                fail("a key must be a string");
            std::string key = string();
            skip_space();
            if (!accept(':'))
                fail("a ':' is missing");
            if (!members.emplace(std::move(key), element(depth + 1)).second)
                fail("a key is there twice");
            skip_space();
        } while (accept(','));
        if (!accept('}'))
            fail("a '}' is missing");
        return Value(std::move(members));
    }

    Value array(int depth) {
        Array items;
        at_++;
        skip_space();
        if (accept(']'))
            return Value(std::move(items));
        do {
            items.push_back(element(depth + 1));
            skip_space();
        } while (accept(','));
        if (!accept(']'))
            fail("a ']' is missing");
        return Value(std::move(items));
    }

    double number() {
        const std::size_t begin = at_;
        accept('-');
        if (accept('0')) {
            if (is_digit(peek()))
                fail("a number starts with 0");
        } else
            digits();
        if (accept('.'))
            digits();
        if (accept('e') || accept('E')) {
            if (!accept('+'))
                accept('-');
            digits();
        }
        double value = 0;
        const auto result = std::from_chars(text_.data() + begin, text_.data() + at_, value);
        if (result.ec != std::errc() || !std::isfinite(value))
            fail("a number is out of range");
        return value;
    }

    static bool is_digit(char c) { return c >= '0' && c <= '9'; }

    void digits() {
        if (!is_digit(peek()))
            fail("a value or a digit is missing");
        while (is_digit(peek()))
            at_++;
    }

    std::string string() {
        std::string out;
        at_++;
        while (true) {
            if (at_ >= text_.size())
                fail("a string does not end");
            const char c = text_[at_++];
            if (c == '"')
                return out;
            if (static_cast<unsigned char>(c) < 0x20)
                fail("a control character in a string");
            if (c != '\\') {
                out += c;
                continue;
            }
            static constexpr std::string_view NAMES = "\"\\/bfnrt", CHARACTERS = "\"\\/\b\f\n\r\t";
            const char escape = peek();
            at_++;
            if (escape == 'u')
                append_utf8(out, code_point());
            else if (const auto i = NAMES.find(escape); escape != '\0' && i != std::string_view::npos)
                out += CHARACTERS[i];
            else
                fail("an unknown escape in a string");
        }
    }

    std::uint32_t four_hex() {
        std::uint32_t value = 0;
        const auto digits = text_.substr(at_, 4);
        const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
        if (digits.size() != 4 || result.ec != std::errc() || result.ptr != digits.data() + 4)
            fail("\\u needs four hexadecimal digits");
        at_ += 4;
        return value;
    }

    std::uint32_t code_point() {
        const std::uint32_t high = four_hex();
        if (high < 0xD800 || high > 0xDFFF)
            return high;
        if (high > 0xDBFF || !accept('\\') || !accept('u'))
            fail("half of a surrogate pair");
        const std::uint32_t low = four_hex();
        if (low < 0xDC00 || low > 0xDFFF)
            fail("half of a surrogate pair");
        return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    }

    static void append_utf8(std::string &out, std::uint32_t c) {
        if (c < 0x80) {
            out += static_cast<char>(c);
            return;
        }
        const int tail = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        static constexpr std::uint32_t LEAD[] = {0, 0xC0, 0xE0, 0xF0};
        out += static_cast<char>(LEAD[tail] | (c >> (6 * tail)));
        for (int i = tail - 1; i >= 0; i--)
            out += static_cast<char>(0x80 | ((c >> (6 * i)) & 0x3F));
    }

    std::string_view text_;
    std::string where_;
    std::size_t at_ = 0;
};

[[noreturn]] void wrong_type(const std::string &where, const char *expected, const char *found) {
    C10_THROW_ERROR(ValueError, c10::str(where, " has the wrong type; expected ", expected, "; found ", found,
                                         "; write the artifact again"));
}

void flatten(const Value &value, const std::string &where, std::vector<double> &out) {
    if (!value.is_array()) {
        out.push_back(value.number(where));
        return;
    }
    for (const Value &item : value.array(where))
        flatten(item, where, out);
}

} // namespace

const char *Value::type_name() const {
    static constexpr const char *NAMES[] = {"null", "a boolean", "a number", "a string", "a list", "an object"};
    return NAMES[data_.index()];
}

bool Value::boolean(const std::string &where) const {
    if (const auto *value = std::get_if<bool>(&data_))
        return *value;
    wrong_type(where, "a boolean", type_name());
}

double Value::number(const std::string &where) const {
    if (const auto *value = std::get_if<double>(&data_))
        return *value;
    wrong_type(where, "a number", type_name());
}

std::int64_t Value::integer(const std::string &where) const {
    const double value = number(where);
    if (value != std::floor(value) || std::abs(value) > 9007199254740992.0)
        wrong_type(where, "a whole number", "a fraction");
    return static_cast<std::int64_t>(value);
}

const std::string &Value::string(const std::string &where) const {
    if (const auto *value = std::get_if<std::string>(&data_))
        return *value;
    wrong_type(where, "a string", type_name());
}

const Array &Value::array(const std::string &where) const {
    if (const auto *value = std::get_if<Array>(&data_))
        return *value;
    wrong_type(where, "a list", type_name());
}

const Object &Value::object(const std::string &where) const {
    if (const auto *value = std::get_if<Object>(&data_))
        return *value;
    wrong_type(where, "an object", type_name());
}

std::vector<double> Value::numbers(const std::string &where) const {
    std::vector<double> out;
    flatten(*this, where, out);
    return out;
}

Value parse(std::string_view text, const std::string &where) { return Parser(text, where).document(); }

} // namespace equistride::json
