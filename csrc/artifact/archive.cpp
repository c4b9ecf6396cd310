#include "artifact/archive.h"

#include "artifact/crc32.h"
#include "artifact/digest.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>

namespace equistride {
namespace {

constexpr std::uint64_t MOST_UNPACKED = 64; // times the size of the file: torch compresses code, about tenfold
constexpr std::size_t FARTHEST_DIRECTORY = 65535 + 22; // from a zip file's end, in bytes

// A zip file ends with its directory; without it, the end of the file is missing. Where it is in the end of a file.
std::size_t find_zip_directory(std::string_view end) { return end.rfind(std::string_view("PK\x05\x06", 4)); }

std::uint64_t number_at(std::string_view bytes, std::size_t place, int size) {
    TORCH_CHECK(place + std::size_t(size) <= bytes.size(), "its directory points beyond its end");
    std::uint64_t value = 0;
    for (int k = size; k-- > 0;)
        value = value << 8 | static_cast<unsigned char>(bytes[place + std::size_t(k)]);
    return value;
}

// CRC-32 of each record, by its name as torch gives it: without the archive's own folder. None of a file beyond 4 GiB
// or 65,534 records, whose directory has another form. `end` begins with the end of the directory.
std::map<std::string, std::uint32_t> checksums(const Content &content, std::string_view end) {
    std::map<std::string, std::uint32_t> found;
    const std::uint64_t count = number_at(end, 10, 2), from = number_at(end, 16, 4);
    if (from == 0xffffffff || count == 0xffff)
        return found;
    const std::string bytes = content.text(from, content.size());
    std::size_t place = 0;
    for (std::uint64_t k = 0; k < count && number_at(bytes, place, 4) == 0x02014b50; k++) {
        const std::size_t name = number_at(bytes, place + 28, 2);
        const std::size_t rest = number_at(bytes, place + 30, 2) + number_at(bytes, place + 32, 2);
        TORCH_CHECK(place + 46 + name <= bytes.size(), "its directory points beyond its end");
        const std::string whole = bytes.substr(place + 46, name);
        found[whole.substr(whole.find('/') + 1)] = static_cast<std::uint32_t>(number_at(bytes, place + 16, 4));
        place += 46 + name + rest;
    }
    return found;
}

std::string record(caffe2::serialize::PyTorchStreamReader &reader, const std::string &name) {
    if (!reader.hasRecord(name))
        return {};
    const auto [data, size] = reader.getRecord(name);
    return {static_cast<const char *>(data.get()), size};
}

} // namespace

ArchiveInfo inspect_archive(const Content &content, const std::string &name) {
    const std::size_t size = content.size();
    const std::string start = content.text(0, 64),
                      end = content.text(size - std::min(size, FARTHEST_DIRECTORY), FARTHEST_DIRECTORY);
    TORCH_CHECK_VALUE(size > 0, name, " is empty; expected a model written by `equistride export`");
    TORCH_CHECK_VALUE(
        !start.starts_with('\x80'), name,
        " is a Python pickle, and equistride never unpickles; expected a model written by `equistride export`");
    TORCH_CHECK_VALUE(!start.starts_with("version https://git-lfs"), name,
                      " is a pointer of git-lfs and not the file itself; run `git lfs pull`");
    TORCH_CHECK_VALUE(start.starts_with("PK\x03\x04"), name,
                      " is no model file; expected a TorchScript archive written by `equistride export`");
    const std::size_t directory = find_zip_directory(end);
    TORCH_CHECK_VALUE(directory != std::string::npos, name, " is truncated at ", size,
                      " bytes; copy or download it again");
    ArchiveInfo info;
    bool has_code = false, has_pickle = false, has_aoti = false;
    try {
        caffe2::serialize::PyTorchStreamReader reader(std::make_shared<ContentReader>(content));
        const std::vector<std::string> entries = reader.getAllRecords();
        std::uint64_t total = 0;
        for (const std::string &entry : entries) {
            total += reader.getRecordSize(entry);
            TORCH_CHECK(total <= MOST_UNPACKED * size, "its records are more than ", MOST_UNPACKED, " times its size");
        }
        const std::map<std::string, std::uint32_t> expected =
            checksums(content, std::string_view(end).substr(directory));
        info.digested = reader.hasRecord(Digest::RECORD);
        std::optional<Digest> digest;
        if (info.digested)
            digest.emplace(record(reader, Digest::RECORD), name);
        for (const std::string &entry : entries) {
            const auto [data, length] = reader.getRecord(entry); // torch does not look at checksums
            const std::string_view found(static_cast<const char *>(data.get()), length);
            if (digest)
                digest->check(entry, found);
            const auto told = expected.find(entry);
            TORCH_CHECK(digest || expected.empty() || (told != expected.end() && told->second == crc32(found)),
                        "the checksum of ", entry, " is wrong");
            has_code |= entry.starts_with("code/");
            has_pickle |= entry == "data.pkl";
            has_aoti |= entry.find("aotinductor/") != std::string::npos;
        }
        if (digest)
            digest->check_complete();
        info.metadata = record(reader, "extra/metadata.json");
        info.reference = record(reader, "extra/reference.json");
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
