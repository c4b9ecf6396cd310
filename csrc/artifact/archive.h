// Look into a model file without running or unpickling anything.
#pragma once

#include "artifact/content.h"
#include "visibility.h"

#include <caffe2/serialize/inline_container.h>

#include <string>
#include <tuple>

namespace equistride {

/// The records of a model file. Raises what torch's reader raises for files that are none.
class EQUISTRIDE_API Records {
public:
    explicit Records(const Content &content);

    caffe2::serialize::PyTorchStreamReader &reader() { return reader_; }
    /// A record where it lies, with its content, or where it is compressed a copy: the same bytes at every call, which
    /// are not to be written to.
    std::tuple<at::DataPtr, std::size_t> get(const std::string &name);

private:
    Content content_;
    caffe2::serialize::PyTorchStreamReader reader_;
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
