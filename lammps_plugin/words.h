// Lists of words in restart files.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace equistride::lammps {

inline std::vector<std::string> words_of(int count, char **words) { return {words, words + count}; }

inline void write_words(FILE *file, const std::vector<std::string> &words) {
    std::string text;
    for (const std::string &word : words)
        text += word + '\n';
    const auto size = static_cast<std::int64_t>(text.size());
    std::fwrite(&size, sizeof size, 1, file);
    std::fwrite(text.data(), 1, text.size(), file);
}

/// Read by one process, known to all.
inline std::vector<std::string> read_words(FILE *file, MPI_Comm world) {
    int me = 0;
    MPI_Comm_rank(world, &me);
    std::int64_t size = 0;
    if (me == 0 && std::fread(&size, sizeof size, 1, file) != 1)
        size = 0;
    MPI_Bcast(&size, 1, MPI_INT64_T, 0, world);
    std::string text(static_cast<std::size_t>(size), '\0');
    if (me == 0)
        text.resize(std::fread(text.data(), 1, text.size(), file));
    text.resize(static_cast<std::size_t>(size));
    MPI_Bcast(text.data(), static_cast<int>(size), MPI_CHAR, 0, world);
    std::vector<std::string> words;
    std::size_t start = 0;
    for (std::size_t end; (end = text.find('\n', start)) != std::string::npos; start = end + 1)
        words.push_back(text.substr(start, end - start));
    return words;
}

} // namespace equistride::lammps
