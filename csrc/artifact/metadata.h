// What an artifact says of itself (metadata.json).
#pragma once

#include "visibility.h"

#include <optional>
#include <string>
#include <vector>

namespace equistride {

/// The newest format version that this build can read.
inline constexpr int FORMAT_VERSION = 1;

/// What a compiled program is for.
struct Compiled {
    std::string torch;           ///< version, "2.13.0"
    std::string device;          ///< "cpu"
    std::string machine;         ///< as `uname -m` says it
    std::string instruction_set; ///< "portable", "avx2" or "avx512"
    int exchanges = 0;           ///< calls of `equistride::exchange`
    double shortest = 0;         ///< A; shorter bonds are outside its tables
};

struct Metadata {
    int format_version = 0;
    std::string kind; ///< "potential" or "propagator"
    std::string architecture;
    std::vector<std::string> species; ///< element symbols; a species index points in here
    std::vector<double> masses;       ///< amu, one a species; empty where not recorded
    double cutoff = 0;                ///< A
    int num_layers = 1;               ///< message-passing layers
    double interaction_range = 0;     ///< A; how far an atom's energy looks: cutoff times the sums over neighbours
    std::string dtype;                ///< "float32" or "float64"
    double stride_fs = 0;             ///< fs, propagators only
    std::string ensemble;             ///< propagators only
    double max_speed = 0;             ///< A/fs, propagators only: faster atoms are refused; 0 where not recorded
    bool requires_box = false;        ///< trained on periodic systems alone
    bool knows_system = false;        ///< potentials: depends on total charge and spin multiplicity
    double charge = 0, spin = 0;      ///< those of the file, e and multiplicity (0: not given)
    std::optional<Compiled> compiled; ///< of AOTInductor's container
    std::string text;                 ///< metadata.json as it was written

    /// Index of an element; raises c10::ValueError with the elements that the model knows.
    EQUISTRIDE_API int species_index(const std::string &symbol) const;
};

/// Read and check metadata.json; raises c10::ValueError. `name` is the artifact's name for messages.
EQUISTRIDE_API Metadata read_metadata(const std::string &text, const std::string &name);

} // namespace equistride
