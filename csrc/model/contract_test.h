// Whether a model does what its contract says, tried on small frames: what a look at the module cannot tell.
#pragma once

#include "model/model.h"

namespace equistride {

class Container;

/// Raises c10::ValueError where a declared capability is none: spare atoms, or a second frame in the same graph, change
/// outputs. A file of format 1 declares none, and its contract is changed instead.
/// @param frame      one that the model can evaluate, with its edges
/// @param tolerance  largest change, as a share of the largest output or of 1
/// @returns          how many steps along a chain of atoms the first one was seen to look; 0 where it cannot be seen
int verify_contract(Model &model, Container &container, Contract &contract, const Frame &frame, double tolerance,
                    const std::string &name);

} // namespace equistride
