// Many frames, of any sizes, cells and compositions, in one call of a network.
#pragma once

#include "evaluation/placement.h"

namespace equistride {

struct BatchOutputs {
    at::Tensor energies;        ///< [B] eV, float64
    at::Tensor atomic_energies; ///< [N] eV, float64, atoms of all frames in order
    at::Tensor forces;          ///< [N, 3] eV/A
    at::Tensor virials;         ///< [B, 3, 3] eV
};

/// One frame of a batch.
struct BatchFrame {
    Coordinates at;
    at::Tensor species; ///< [n] int64
    at::Tensor pbc;     ///< [3] bool
};

/// Their graphs are joined where the model's contract allows it, which pays for small frames; else they are evaluated
/// one by one. Raises c10::ValueError as Model::compute() does, with the number of the frame.
EQUISTRIDE_API BatchOutputs compute_batch(Model &model, const std::vector<BatchFrame> &frames);

} // namespace equistride
