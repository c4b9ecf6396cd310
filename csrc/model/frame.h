// What a model is given, and what it gives. Units: angstrom, eV, fs. Signs as in the README of csrc/model.
#pragma once

#include "visibility.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace equistride {

/// One configuration. Floating tensors have the model's input_dtype(), all tensors its device.
struct Frame {
    at::Tensor positions;  ///< [N, 3] A
    at::Tensor velocities; ///< [N, 3] A/fs, propagators only
    at::Tensor species;    ///< [N] int64, index into Metadata::species
    at::Tensor cell;       ///< [3, 3] A, lattice vectors as rows, zeros where there is no box
    at::Tensor edge_index; ///< [2, E] int64, row 0 receiver i, row 1 sender j, sorted by i
    at::Tensor shifts;     ///< [E, 3] int32, r_ij = r_j - r_i + shifts @ cell
    at::Tensor vectors;    ///< [E, 3] A, r_ij, where somebody has needed them; else undefined
    /// The engine's own numbers of the atoms, for messages; null where they are 0, 1, ...
    const std::vector<std::int64_t> *labels = nullptr;
};

struct Outputs {
    at::Tensor atomic_energies; ///< [N] eV, potentials
    at::Tensor forces;          ///< [N, 3] eV/A, potentials
    at::Tensor virial;          ///< [3, 3] eV, -sum r_ij (x) f_ij, potentials
    at::Tensor displacements;   ///< [N, 3] A, propagators
    at::Tensor velocities;      ///< [N, 3] A/fs, propagators

    struct Named {
        const char *key;     ///< as reference.json has it
        const char *of_atom; ///< in sentences; null where it is not one an atom
        at::Tensor values;
    };
    /// Those that there are, in the order of the members.
    std::vector<Named> named() const;
};

/// What a model says of the first atoms of a frame, those that the caller owns; float64 on the CPU.
struct PartOutputs {
    at::Tensor atomic_energies; ///< [owned] eV, potentials
    at::Tensor vectors;         ///< [E, 3] A, r_ij
    at::Tensor gradient;        ///< [E, 3] eV/A, potentials: derivative of the owned atoms' energy to r_ij; with an
                                ///< exchange, of the energy of all processes' atoms; undefined where not wanted
    at::Tensor displacements;   ///< [owned, 3] A, propagators: as the network gives them, momentum not yet kept
    at::Tensor velocities;      ///< [owned, 3] A/fs, propagators: likewise
};

/// Fill edge_index and shifts with `equistride::neighbors`; `pbc` is a bool tensor of three.
EQUISTRIDE_API void find_edges(Frame &frame, const at::Tensor &pbc, double cutoff);

/// r_ij [E, 3] A of a frame's edges, in the precision of its positions, where it does not have them.
at::Tensor edge_vectors(const Frame &frame);

/// Forces [N, 3] on all atoms from the energy's gradient to the edge vectors: F_i = sum_j g_ij - sum_j g_ji.
EQUISTRIDE_API at::Tensor forces_from_edges(const at::Tensor &gradient, const at::Tensor &edge_index,
                                            const at::Tensor &shifts, std::int64_t atoms);
/// -sum r_ij (x) g_ij [3, 3], which is -dE/d(strain).
EQUISTRIDE_API at::Tensor virial_from_edges(const at::Tensor &vectors, const at::Tensor &gradient);

/// A caller in torch.inference_mode() hands over tensors that autograd refuses and that cannot be kept: a copy of such.
at::Tensor outside_inference(const at::Tensor &tensor);

} // namespace equistride
