// What an artifact says of itself (metadata.json); docs/artifact.md has every field.
#pragma once

#include "visibility.h"

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace equistride {

/// The newest format version that this build can read.
inline constexpr int FORMAT_VERSION = 2;

/// Share by which a time step may differ from the stride that it stands for: units round.
inline constexpr double SAME_STRIDE = 1e-6;

/// What a compiled program is for.
struct Compiled {
    std::string torch;           ///< version, "2.13.0"
    std::string device;          ///< "cpu"
    std::string machine;         ///< as `uname -m` says it
    std::string instruction_set; ///< "portable", "avx2" or "avx512"
    double cutoff = 0;           ///< A, of the program; 0 where not recorded
    int exchanges = 0;           ///< calls of `equistride::exchange`
};

/// What a model takes; 0 where it takes everything.
struct Limits {
    double shortest_bond = 0; ///< A
    double fastest_atom = 0;  ///< A/fs
    double smallest_box = 0;  ///< cutoffs, between opposite faces
};

/// The only system that a model holds for: whole numbers of atoms by element, of which any multiple will do unless
/// `atoms` says how many there are in all.
struct Composition {
    std::map<std::string, int> elements;
    std::optional<int> atoms;
};

/// What a model can do and needs. Engines ask this and nothing else; a capability that is not declared is not used.
struct Contract {
    int message_passing_steps = 1; ///< sums over neighbours that follow one another
    bool decomposable = false;     ///< energies, or strides, of some atoms from edge vectors; forces are the gradient
    bool padded = false;           ///< spare atoms and edges change nothing
    bool batched = false;          ///< frames may be joined in one graph
    bool uncertainty = false;      ///< says how far the members of an ensemble disagree
    int global_sums = 0;           ///< reductions over all atoms in one evaluation
    bool angular_momentum = false; ///< a propagator keeps it where there is no box
    Limits limits;
    std::map<std::string, int> operators; ///< of ours that the module calls, with the versions of their schemas

    /// Features travel between layers, so that ghost atoms within one cutoff will do.
    bool exchanges() const { return operators.contains("equistride::exchange"); }
};

struct Metadata {
    enum class ChargeSpin { none, input, fixed };

    int format_version = 0;
    std::string kind; ///< "potential" or "propagator"
    std::string architecture;
    std::vector<std::string> species;          ///< element symbols; a species index points in here
    std::vector<double> masses;                ///< amu, one a species; empty where not recorded
    double cutoff = 0;                         ///< A
    std::optional<double> range;               ///< A, how far an atom's energy looks; none where it looks at all atoms
    std::string dtype;                         ///< "float32" or "float64"
    double stride_fs = 0;                      ///< fs, propagators only: the one in effect
    std::vector<double> strides_fs;            ///< fs, propagators only: all that there are, the shortest first
    std::string ensemble;                      ///< propagators only
    int members = 1;                           ///< sets of weights
    bool requires_box = false;                 ///< trained on periodic systems alone
    ChargeSpin charge_spin = ChargeSpin::none; ///< whether the model depends on them, and whether they can be set
    double charge = 0, spin = 0;               ///< those of the file, e and multiplicity (0: not given)
    std::optional<Composition> composition;
    Contract contract;                ///< format 1 has none: it is read off the module (model/declaration.h)
    std::optional<Compiled> compiled; ///< of AOTInductor's container
    bool digest = false;              ///< the file was written with a digest, and is another without
    std::string text;                 ///< metadata.json as it was written

    bool is_potential() const { return kind == "potential"; }
    /// Index of an element; raises c10::ValueError with the elements that the model knows.
    EQUISTRIDE_API int species_index(const std::string &symbol) const;
    /// Which of the strides a time step [fs] is; none where the model was not trained for it.
    EQUISTRIDE_API std::optional<std::size_t> stride_index(double timestep_fs) const;
    /// The strides, each over `unit`, in words: "5, 10 or 30".
    EQUISTRIDE_API std::string strides_in_words(double unit = 1) const;
};

/// Read and check metadata.json; raises c10::ValueError. `name` is the artifact's name for messages.
EQUISTRIDE_API Metadata read_metadata(const std::string &text, const std::string &name);

/// The contract as JSON, with the names that it has in metadata.json of format 2.
std::string describe(const Metadata &metadata);

} // namespace equistride
