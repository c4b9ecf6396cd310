#include "artifact/content.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace equistride {
namespace {

struct Stamp { // of the last change
    std::int64_t size = 0, seconds = 0, nanoseconds = 0;
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
    int descriptor;
    Stamp stamp;

    explicit File(std::string name)
        : path(std::move(name)), descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC)), stamp(stamp_of(descriptor)) {}
    File(const File &) = delete;
    File &operator=(const File &) = delete;
    ~File() {
        if (descriptor >= 0)
            close(descriptor);
    }
};

Content Content::of_file(const std::string &path) {
    TORCH_CHECK_VALUE(std::filesystem::is_regular_file(path), "the model file ", path,
                      " does not exist; check the path");
    auto file = std::make_shared<const File>(path);
    TORCH_CHECK_VALUE(file->descriptor >= 0, "the model file ", path, " cannot be read; check its permissions");
    return Content(std::move(file));
}

std::size_t Content::size() const { return file_ ? static_cast<std::size_t>(file_->stamp.size) : bytes_->size(); }

std::size_t Content::read(std::uint64_t from, void *to, std::size_t count) const {
    count = from < size() ? std::min<std::size_t>(count, size() - from) : 0;
    if (!file_) {
        std::memcpy(to, bytes_->data() + from, count);
        return count;
    }
    std::size_t done = 0;
    while (done < count) {
        const ssize_t some =
            pread(file_->descriptor, static_cast<char *>(to) + done, count - done, static_cast<off_t>(from + done));
        TORCH_CHECK_VALUE(some > 0 || (some < 0 && errno == EINTR), "the model file ", file_->path,
                          " cannot be read to its end; check its disk, and that nobody writes to it");
        done += static_cast<std::size_t>(std::max<ssize_t>(some, 0));
    }
    return done;
}

std::string Content::text(std::uint64_t from, std::size_t count) const {
    std::string found(from < size() ? std::min<std::size_t>(count, size() - from) : 0, '\0');
    read(from, found.data(), found.size());
    return found;
}

std::shared_ptr<const std::string> Content::whole() const {
    return file_ ? std::make_shared<const std::string>(text(0, size())) : bytes_;
}

void Content::require_unchanged() const {
    TORCH_CHECK_VALUE(
        !file_ || stamp_of(file_->descriptor) == file_->stamp, "the model file ", file_ ? file_->path : std::string(),
        " was written to since it was opened; load the model again, and put new files in the place of old "
        "ones by renaming them");
}

} // namespace equistride
