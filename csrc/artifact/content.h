// The bytes of a model file: in memory, or on the disk and read from there as they are asked for.
#pragma once

#include "visibility.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace equistride {

/// Copies share the bytes, or the open file.
class EQUISTRIDE_API Content {
public:
    Content(std::shared_ptr<const std::string> bytes) // NOLINT: as engines that send or keep them have them
        : bytes_(std::move(bytes)) {}
    /// Raises c10::ValueError where there is no such file, or it cannot be read.
    static Content of_file(const std::string &path);

    std::size_t size() const;
    /// Copies `count` bytes, or those that there are from `from` on, and returns how many.
    std::size_t read(std::uint64_t from, void *to, std::size_t count) const;
    std::string text(std::uint64_t from, std::size_t count) const;
    /// All of them, in memory.
    std::shared_ptr<const std::string> whole() const;
    /// Raises c10::ValueError where the file was written to since it was opened, by its size and the time of its last
    /// change. One that another took the place of is still what it was, and so is one that was deleted.
    void require_unchanged() const;

private:
    struct File;
    explicit Content(std::shared_ptr<const File> file) : file_(std::move(file)) {}

    std::shared_ptr<const std::string> bytes_;
    std::shared_ptr<const File> file_;
};

} // namespace equistride
