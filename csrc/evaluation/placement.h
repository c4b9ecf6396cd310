// From where an engine has its atoms to where a model takes them: the one place that moves and rounds positions.
#pragma once

#include "model/model.h"

namespace equistride {

/// Where the atoms are, in any precision and on any device.
struct Coordinates {
    at::Tensor positions;                              ///< [N, 3] A
    at::Tensor velocities;                             ///< [N, 3] A/fs, propagators only
    at::Tensor cell;                                   ///< [3, 3] A on the CPU; undefined where there is no box
    const std::vector<std::int64_t> *labels = nullptr; ///< the engine's own numbers of the atoms, for messages
};

/// Brings atoms close to the origin in double precision, before a model or its uncertainty() rounds them, which changes
/// no distance: by whole lattice vectors along periodic axes, and along open ones, for a model in single precision, by
/// their mean. So atoms a hundred boxes away keep their digits. A propagator takes double precision and its atoms as
/// they are.
class EQUISTRIDE_API Placement {
public:
    /// @param pbc  bool [3]
    Placement(const Model &model, const at::Tensor &pbc);

    /// Lattice vectors [3, 3] as rows, of length 1 and at right angles along open axes; float64, CPU. Raises
    /// c10::ValueError as check_box() does.
    /// @param atoms  how many are in the cell
    at::Tensor lattice(const at::Tensor &cell, std::int64_t atoms) const;
    /// Not finite for a box without a volume, which the search for neighbours refuses.
    static at::Tensor inverse_of(const at::Tensor &lattice);
    /// Positions [N, 3] in double precision near the origin; the lattice and its inverse are on their device. Neither
    /// is looked at where the system is open along all axes.
    at::Tensor near_origin(const at::Tensor &positions, const at::Tensor &lattice, const at::Tensor &inverse) const;
    /// A frame on the model's device in its input_dtype(), without edges. Raises c10::ValueError for positions that are
    /// not finite.
    Frame place(const Coordinates &now, const at::Tensor &species) const;

private:
    const Model &model_;
    bool periodic_[3];
    bool open_ = true; // along all axes
};

} // namespace equistride
