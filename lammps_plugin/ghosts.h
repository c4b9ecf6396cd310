// How a process sees the atoms of others.
#pragma once

#include "model/model.h"

namespace equistride::lammps {

enum class Ghosts {
    local,   ///< one process: periodic images are shifts of its own atoms
    wide,    ///< ghosts as far as a message travels
    exchange ///< ghosts within one cutoff, whose features their owners send between the layers
};

/// What a style's `ghost` may be.
inline const std::vector<std::string> GHOST_CHOICES = {"auto", "local", "wide", "exchange"};

/// The ghosts of a model.
struct GhostPolicy {
    Ghosts kind = Ghosts::local;
    int steps = 1;      ///< edges from an own atom to the farthest ghost that it depends on
    double reach = 0;   ///< A, width of ghost atoms
    bool sends = false; ///< the model asks for its neighbours' features between its layers

    static GhostPolicy local(const Model &model);
    /// By exchange of features where the model can, else wide.
    static GhostPolicy divided(const Model &model);
    /// Raises c10::ValueError where the choice does not fit the model or the number of processes.
    /// @param choice  one of GHOST_CHOICES
    static GhostPolicy of(const std::string &choice, const Model &model, int processes);

    const std::string &name() const { return GHOST_CHOICES[1 + static_cast<std::size_t>(kind)]; }
};

} // namespace equistride::lammps
