// The bytes of a model file: in memory, or on the disk and mapped from there.
#pragma once

#include "visibility.h"

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace equistride {

/// Copies share the bytes.
class EQUISTRIDE_API Content {
public:
    Content() = default;
    Content(std::shared_ptr<const std::string> bytes) // NOLINT: as engines that send or keep them have them
        : bytes_(*bytes), owner_(std::move(bytes)) {}
    /// Bytes that live as long as their owner does, and do not change.
    Content(std::string_view bytes, std::shared_ptr<const void> owner) : bytes_(bytes), owner_(std::move(owner)) {}
    /// A file, of which pages come into memory as they are looked at; a file that cannot be mapped is read. Raises
    /// c10::ValueError where it cannot be read.
    static Content of_file(const std::string &path);

    std::string_view bytes() const { return bytes_; }
    bool is_mapped() const { return file_ != nullptr; }

    /// Let go of the pages of some of the bytes, which nobody has written to: they are read again where they are
    /// needed.
    void let_go(const void *from, std::size_t size) const;
    /// Raises c10::ValueError where a mapped file is no longer the one that was opened. One that another file took the
    /// place of still is, and so is one that was deleted.
    void require_unchanged() const;

private:
    struct File;

    std::string_view bytes_;
    std::shared_ptr<const void> owner_;
    std::shared_ptr<const File> file_;
};

} // namespace equistride
