// The atoms that this process moves.
#pragma once

#include "model/momenta.h"

#include <vector>

namespace equistride {

/// As they are in one stride: where processes share the atoms of a run, they change from one to the next.
struct Particles {
    at::Tensor masses;                                 ///< [n, 1] amu, float64, where positions are
    std::vector<std::int64_t> ids;                     ///< 1, 2, ... over all processes: noise is drawn by them
    std::int64_t count = 0;                            ///< atoms of all processes
    at::Tensor cell;                                   ///< [3, 3] A, zeros along open axes
    bool conserves_angular_momentum = false;           ///< as without a box
    const std::vector<std::int64_t> *labels = nullptr; ///< for messages; null where they are 0, 1, ...

    /// Of the internal motion.
    double degrees_of_freedom(const RigidMotion &rigid) const {
        return static_cast<double>(3 * count - rigid.degrees());
    }
};

} // namespace equistride
