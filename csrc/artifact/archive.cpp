#include "artifact/archive.h"

#include "artifact/crc32.h"
#include "artifact/digest.h"

#include <c10/util/Exception.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>

namespace equistride {
namespace {

constexpr std::uint64_t MOST_UNPACKED = 64; // times the size of the file: torch compresses code, about tenfold

bool starts_with(const std::string &bytes, std::string_view magic) {
    return bytes.compare(0, magic.size(), magic) == 0;
}

// A zip file ends with its directory; without it, the end of the file is missing.
std::size_t find_zip_directory(const std::string &bytes) {
    constexpr std::size_t FARTHEST = 65535 + 22;
    const std::size_t from = bytes.size() > FARTHEST ? bytes.size() - FARTHEST : 0;
    const std::size_t found = bytes.rfind(std::string_view("PK\x05\x06", 4));
    return found == std::string::npos || found < from ? std::string::npos : found;
}

std::uint64_t number_at(const std::string &bytes, std::size_t place, int size) {
    TORCH_CHECK(place + std::size_t(size) <= bytes.size(), "its directory points beyond its end");
    std::uint64_t value = 0;
    for (int k = size; k-- > 0;)
        value = value << 8 | static_cast<unsigned char>(bytes[place + std::size_t(k)]);
    return value;
}

// CRC-32 of each record, by its name as torch gives it: without the archive's own folder. None of a file beyond 4 GiB
// or 65,534 records, whose directory has another form.
std::map<std::string, std::uint32_t> checksums(const std::string &bytes, std::size_t directory) {
    std::map<std::string, std::uint32_t> found;
    const std::uint64_t count = number_at(bytes, directory + 10, 2);
    std::size_t place = number_at(bytes, directory + 16, 4);
    if (place == 0xffffffff || count == 0xffff)
        return found;
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
    const std::size_t directory = find_zip_directory(*bytes);
    TORCH_CHECK_VALUE(directory != std::string::npos, name, " is truncated at ", bytes->size(),
                      " bytes; copy or download it again");
    ArchiveInfo info;
    bool has_code = false, has_pickle = false, has_aoti = false;
    try {
        caffe2::serialize::PyTorchStreamReader reader(std::make_shared<MemoryReader>(bytes));
        const std::vector<std::string> entries = reader.getAllRecords();
        std::uint64_t total = 0;
        for (const std::string &entry : entries) {
            total += reader.getRecordSize(entry);
            TORCH_CHECK(total <= MOST_UNPACKED * bytes->size(), "its records are more than ", MOST_UNPACKED,
                        " times its size");
        }
        const std::map<std::string, std::uint32_t> expected = checksums(*bytes, directory);
        info.digested = reader.hasRecord(Digest::RECORD);
        std::optional<Digest> digest;
        if (info.digested)
            digest.emplace(record(reader, Digest::RECORD), name);
        for (const std::string &entry : entries) {
            const auto [data, size] = reader.getRecord(entry); // torch does not look at checksums
            const std::string_view content(static_cast<const char *>(data.get()), size);
            if (digest)
                digest->check(entry, content);
            const auto told = expected.find(entry);
            TORCH_CHECK(digest || expected.empty() || (told != expected.end() && told->second == crc32(content)),
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

std::shared_ptr<const std::string> read_file(const std::string &path) {
    TORCH_CHECK_VALUE(std::filesystem::is_regular_file(path), "the model file ", path,
                      " does not exist; check the path");
    std::error_code failed;
    const std::uintmax_t size = std::filesystem::file_size(path, failed);
    auto bytes = std::make_shared<std::string>(failed ? 0 : size, '\0');
    std::ifstream file(path, std::ios::binary);
    file.read(bytes->data(), // at once: byte by byte is a twentieth of a load
              static_cast<std::streamsize>(bytes->size()));
    TORCH_CHECK_VALUE(!failed && file, "the model file ", path, " cannot be read; check its permissions");
    return bytes;
}

} // namespace equistride
