#include "artifact/content.h"

#include <c10/util/Exception.h>

#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace equistride {
namespace {

struct Stamp { // of the last change
    std::int64_t size = -1, seconds = 0, nanoseconds = 0;
    bool operator==(const Stamp &) const = default;
};

Stamp stamp_of(int descriptor) {
    struct stat facts{};
    if (fstat(descriptor, &facts) != 0)
        return {};
#ifdef __APPLE__
    const timespec &changed = facts.st_mtimespec;
#else
    const timespec &changed = facts.st_mtim;
#endif
    return {facts.st_size, changed.tv_sec, changed.tv_nsec};
}

} // namespace

struct Content::File {
    std::string path;
    int descriptor = -1;
    Stamp stamp;
    void *start = MAP_FAILED;

    explicit File(const std::string &name) : path(name), descriptor(open(name.c_str(), O_RDONLY | O_CLOEXEC)) {
        stamp = descriptor < 0 ? Stamp() : stamp_of(descriptor);
        if (stamp.size > 0) // private: what is written to stays with this process
            start = mmap(nullptr, std::size_t(stamp.size), PROT_READ | PROT_WRITE, MAP_PRIVATE, descriptor, 0);
    }
    File(const File &) = delete;
    File &operator=(const File &) = delete;
    ~File() {
        if (start != MAP_FAILED)
            munmap(start, std::size_t(stamp.size));
        if (descriptor >= 0)
            close(descriptor);
    }
};

Content Content::of_file(const std::string &path) {
    TORCH_CHECK_VALUE(std::filesystem::is_regular_file(path), "the model file ", path,
                      " does not exist; check the path");
    auto file = std::make_shared<const File>(path);
    if (file->start != MAP_FAILED) {
        Content content;
        content.bytes_ = {static_cast<const char *>(file->start), std::size_t(file->stamp.size)};
        content.file_ = std::move(file);
        return content;
    }
    std::ifstream stream(path, std::ios::binary);
    auto bytes =
        std::make_shared<const std::string>(std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>());
    TORCH_CHECK_VALUE(stream.good() || stream.eof(), "the model file ", path, " cannot be read; check its permissions");
    return bytes;
}

void Content::let_go(const void *from, std::size_t size) const {
    const auto page = std::uintptr_t(sysconf(_SC_PAGESIZE));
    const auto begin = (reinterpret_cast<std::uintptr_t>(from) + page - 1) / page * page,
               end = (reinterpret_cast<std::uintptr_t>(from) + size) / page * page;
    const auto first = reinterpret_cast<std::uintptr_t>(bytes_.data());
    if (is_mapped() && begin >= first && begin < end && end <= first + bytes_.size())
        madvise(reinterpret_cast<void *>(begin), end - begin, MADV_DONTNEED); // NOLINT: an address
}

void Content::require_unchanged() const {
    TORCH_CHECK_VALUE(!is_mapped() || stamp_of(file_->descriptor) == file_->stamp, "the model file ",
                      is_mapped() ? file_->path : std::string(),
                      " was written to after it was opened; load the model again, and put new files in the place of "
                      "old ones by renaming them");
}

} // namespace equistride
