// Look into a model file without running or unpickling anything.
#pragma once

#include "artifact/content.h"
#include "visibility.h"

#include <caffe2/serialize/inline_container.h>

#include <string>

namespace equistride {

/// A model file as torch's reader wants it.
class EQUISTRIDE_API ContentReader final : public caffe2::serialize::ReadAdapterInterface {
public:
    explicit ContentReader(Content content) : content_(std::move(content)) {}
    std::size_t size() const override { return content_.size(); }
    std::size_t read(std::uint64_t pos, void *buf, std::size_t n, const char * /*what*/) const override {
        return content_.read(pos, buf, n);
    }

private:
    Content content_;
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
EQUISTRIDE_API ArchiveInfo inspect_archive(const Content &content, const std::string &name);

} // namespace equistride
