#include "model/archive.h"

#include <c10/util/Exception.h>

#include <cstring>
#include <filesystem>
#include <fstream>

namespace equistride {
namespace {

bool starts_with(const std::string &bytes, std::string_view magic) {
    return bytes.compare(0, magic.size(), magic) == 0;
}

// A zip file ends with its directory; without it, the end of the file is missing.
bool has_zip_directory(const std::string &bytes) {
    constexpr std::size_t FARTHEST = 65535 + 22;
    const std::size_t from = bytes.size() > FARTHEST ? bytes.size() - FARTHEST : 0;
    return bytes.find(std::string_view("PK\x05\x06", 4), from) != std::string::npos;
}

std::string record(caffe2::serialize::PyTorchStreamReader &reader, const std::string &name) {
    if (!reader.hasRecord(name))
        return {};
    const auto [data, size] = reader.getRecord(name);
    return {static_cast<const char *>(data.get()), size};
}

} // namespace

std::size_t MemoryReader::read(std::uint64_t pos, void *buf, std::size_t n, const char *) const {
    if (pos >= bytes_->size())
        return 0;
    n = std::min<std::size_t>(n, bytes_->size() - pos);
    std::memcpy(buf, bytes_->data() + pos, n);
    return n;
}

ArchiveInfo inspect_archive(const std::shared_ptr<const std::string> &bytes, const std::string &name) {
    TORCH_CHECK_VALUE(!bytes->empty(), name, " is empty; expected a model written by `equistride export`");
    TORCH_CHECK_VALUE(
        !starts_with(*bytes, "\x80"), name,
        " is a Python pickle, and equistride never unpickles; expected a model written by `equistride export`");
    TORCH_CHECK_VALUE(!starts_with(*bytes, "version https://git-lfs"), name,
                      " is a pointer of git-lfs and not the file itself; run `git lfs pull`");
    TORCH_CHECK_VALUE(starts_with(*bytes, std::string_view("PK\x03\x04", 4)), name,
                      " is no model file; expected a TorchScript archive written by `equistride export`");
    TORCH_CHECK_VALUE(has_zip_directory(*bytes), name, " is truncated at ", bytes->size(),
                      " bytes; copy or download it again");
    ArchiveInfo info;
    bool has_code = false, has_pickle = false, has_aoti = false;
    try {
        caffe2::serialize::PyTorchStreamReader reader(std::make_shared<MemoryReader>(bytes));
        for (const std::string &entry : reader.getAllRecords()) {
            has_code |= entry.starts_with("code/");
            has_pickle |= entry == "data.pkl";
            has_aoti |= entry.find("aotinductor/") != std::string::npos;
        }
        info.metadata = record(reader, "extra/metadata.json");
        info.reference = record(reader, "extra/reference.json");
    } catch (const c10::Error &error) {
        C10_THROW_ERROR(ValueError, c10::str(name, " is damaged: torch cannot read it as an archive (",
                                             error.what_without_backtrace(), "); copy or download it again"));
    }
    if (has_aoti) {
        info.container = Container::aoti;
        return info;
    }
    TORCH_CHECK_VALUE(
        has_code, name,
        has_pickle ? " holds pickled weights and no program (torch.save); export the model with `equistride export`"
                   : " is an archive but no model; expected a file written by `equistride export`");
    return info;
}

std::shared_ptr<const std::string> read_file(const std::string &path) {
    TORCH_CHECK_VALUE(std::filesystem::is_regular_file(path), "the model file ", path,
                      " does not exist; check the path");
    std::ifstream file(path, std::ios::binary);
    auto bytes = std::make_shared<std::string>(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    TORCH_CHECK_VALUE(file.good() || file.eof(), "the model file ", path, " cannot be read; check its permissions");
    return bytes;
}

} // namespace equistride
