// Look into a model file without running or unpickling anything.
#pragma once

#include "visibility.h"

#include <caffe2/serialize/inline_container.h>

#include <memory>
#include <string>

namespace equistride {

/// A model file in memory as torch's reader wants it; shares the bytes.
class EQUISTRIDE_API MemoryReader final : public caffe2::serialize::ReadAdapterInterface {
public:
    explicit MemoryReader(std::shared_ptr<const std::string> bytes) : bytes_(std::move(bytes)) {}
    std::size_t size() const override { return bytes_->size(); }
    std::size_t read(std::uint64_t pos, void *buf, std::size_t n, const char *what) const override;

private:
    std::shared_ptr<const std::string> bytes_;
};

/// What a file is. `metadata` and `reference` are empty where the archive has none.
struct ArchiveInfo {
    enum class Container { torchscript, aoti };
    Container container = Container::torchscript;
    std::string metadata;
    std::string reference;
    bool digested = false; ///< each record is the one that was written, by its SHA-256
};

/// Raises c10::ValueError with a sentence for an empty or truncated file, a pickle, anything else, or one that
/// was changed after it was written.
EQUISTRIDE_API ArchiveInfo inspect_archive(const std::shared_ptr<const std::string> &bytes, const std::string &name);

/// Read a whole file; raises c10::ValueError where it cannot be read.
EQUISTRIDE_API std::shared_ptr<const std::string> read_file(const std::string &path);

} // namespace equistride
