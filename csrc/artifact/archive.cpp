#include "artifact/archive.h"

#include "artifact/crc32.h"
#include "artifact/digest.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <optional>

namespace equistride {
namespace {

constexpr std::uint64_t MOST_UNPACKED = 64; // times the size of the file: torch compresses code, about tenfold

// Bytes as torch's reader wants them.
class Reader final : public caffe2::serialize::ReadAdapterInterface {
public:
    explicit Reader(Content content) : content_(std::move(content)) {}
    std::size_t size() const override { return content_.bytes().size(); }
    std::size_t read(std::uint64_t pos, void *buf, std::size_t n, const char *) const override {
        const std::string_view all = content_.bytes();
        return pos >= all.size() ? 0 : all.copy(static_cast<char *>(buf), n, pos);
    }

private:
    Content content_;
};

// A zip file ends with its directory; without it, the end of the file is missing.
std::size_t find_zip_directory(std::string_view bytes) {
    constexpr std::size_t FARTHEST = 65535 + 22;
    const std::size_t from = bytes.size() > FARTHEST ? bytes.size() - FARTHEST : 0;
    const std::size_t found = bytes.rfind(std::string_view("PK\x05\x06", 4));
    return found == std::string::npos || found < from ? std::string::npos : found;
}

std::uint64_t number_at(std::string_view bytes, std::size_t place, int size) {
    TORCH_CHECK(place + std::size_t(size) <= bytes.size(), "its directory points beyond its end");
    std::uint64_t value = 0;
    for (int k = size; k-- > 0;)
        value = value << 8 | static_cast<unsigned char>(bytes[place + std::size_t(k)]);
    return value;
}

// CRC-32 of each record, by its name as torch gives it: without the archive's own folder. None of a file beyond 4 GiB
// or 65,534 records, whose directory has another form.
std::map<std::string, std::uint32_t> checksums(std::string_view bytes, std::size_t directory) {
    std::map<std::string, std::uint32_t> found;
    const std::uint64_t count = number_at(bytes, directory + 10, 2);
    std::size_t place = number_at(bytes, directory + 16, 4);
    if (place == 0xffffffff || count == 0xffff)
        return found;
    for (std::uint64_t k = 0; k < count && number_at(bytes, place, 4) == 0x02014b50; k++) {
        const std::size_t name = number_at(bytes, place + 28, 2);
        const std::size_t rest = number_at(bytes, place + 30, 2) + number_at(bytes, place + 32, 2);
        TORCH_CHECK(place + 46 + name <= bytes.size(), "its directory points beyond its end");
        const std::string whole(bytes.substr(place + 46, name));
        found[whole.substr(whole.find('/') + 1)] = static_cast<std::uint32_t>(number_at(bytes, place + 16, 4));
        place += 46 + name + rest;
    }
    return found;
}

std::string text_of(Records &records, const std::string &name) {
    if (!records.reader().hasRecord(name))
        return {};
    const auto [data, size] = records.get(name);
    return {static_cast<const char *>(data.get()), size};
}

} // namespace

Records::Records(const Content &content) : content_(content), reader_(std::make_shared<Reader>(content)) {}

std::tuple<at::DataPtr, std::size_t> Records::get(const std::string &name) {
    constexpr std::size_t METHOD = 8; // in the header of a record, two bytes: 0 where it is not compressed
    const std::string_view all = content_.bytes();
    const std::size_t header = reader_.getRecordHeaderOffset(name), at = reader_.getRecordOffset(name),
                      size = reader_.getRecordSize(name);
    const bool inside = at <= all.size() && size <= all.size() - at;
    const bool aligned = reinterpret_cast<std::uintptr_t>(all.data() + at) % alignof(std::max_align_t) == 0;
    if (!inside || !aligned || number_at(all, header + METHOD, 2) != 0)
        return reader_.getRecord(name);
    return {at::DataPtr(
                const_cast<char *>(all.data() + at), new Content(content_), // NOLINT: not to be written to
                [](void *owner) { delete static_cast<Content *>(owner); }, at::kCPU),
            size};
}

ArchiveInfo inspect_archive(const Content &content, const std::string &name) {
    const std::string_view bytes = content.bytes();
    TORCH_CHECK_VALUE(!bytes.empty(), name, " is empty; expected a model written by `equistride export`");
    TORCH_CHECK_VALUE(
        !bytes.starts_with('\x80'), name,
        " is a Python pickle, and equistride never unpickles; expected a model written by `equistride export`");
    TORCH_CHECK_VALUE(!bytes.starts_with("version https://git-lfs"), name,
                      " is a pointer of git-lfs and not the file itself; run `git lfs pull`");
    TORCH_CHECK_VALUE(bytes.starts_with("PK\x03\x04"), name,
                      " is no model file; expected a TorchScript archive written by `equistride export`");
    const std::size_t directory = find_zip_directory(bytes);
    TORCH_CHECK_VALUE(directory != std::string::npos, name, " is truncated at ", bytes.size(),
                      " bytes; copy or download it again");
    ArchiveInfo info;
    bool has_code = false, has_pickle = false, has_aoti = false;
    try {
        Records records(content);
        caffe2::serialize::PyTorchStreamReader &reader = records.reader();
        const std::vector<std::string> entries = reader.getAllRecords();
        std::uint64_t total = 0;
        for (const std::string &entry : entries) {
            total += reader.getRecordSize(entry);
            TORCH_CHECK(total <= MOST_UNPACKED * bytes.size(), "its records are more than ", MOST_UNPACKED,
                        " times its size");
        }
        const std::map<std::string, std::uint32_t> expected = checksums(bytes, directory);
        info.digested = reader.hasRecord(Digest::RECORD);
        std::optional<Digest> digest;
        if (info.digested)
            digest.emplace(text_of(records, Digest::RECORD), name);
        for (const std::string &entry : entries) {
            const auto [data, size] = records.get(entry); // torch does not look at checksums
            const std::string_view record(static_cast<const char *>(data.get()), size);
            if (digest)
                digest->check(entry, record);
            const auto told = expected.find(entry);
            TORCH_CHECK(digest || expected.empty() || (told != expected.end() && told->second == crc32(record)),
                        "the checksum of ", entry, " is wrong");
            has_code |= entry.starts_with("code/");
            has_pickle |= entry == "data.pkl";
            has_aoti |= entry.find("aotinductor/") != std::string::npos;
            content.let_go(record.data(), record.size());
        }
        if (digest)
            digest->check_complete();
        info.metadata = text_of(records, "extra/metadata.json");
        info.reference = text_of(records, "extra/reference.json");
    } catch (const c10::ValueError &) {
        throw;
    } catch (const c10::Error &error) {
        C10_THROW_ERROR(ValueError, c10::str(name, " is damaged: torch cannot read it as an archive (",
                                             error.what_without_backtrace(), "); copy or download it again"));
    }
    if (has_aoti) {
        info.container = ArchiveInfo::Container::aoti;
        return info;
    }
    TORCH_CHECK_VALUE(
        has_code, name,
        has_pickle ? " holds pickled weights and no program (torch.save); export the model with `equistride export`"
                   : " is an archive but no model; expected a file written by `equistride export`");
    return info;
}

} // namespace equistride
