// The self-test of an artifact: its reference frame must give its reference outputs.
#pragma once

#include "model/model.h"

namespace equistride {

/// Raises c10::ValueError where an output differs by more than tolerance * max(1, largest reference value).
void verify_reference(Model &model, const std::string &reference_json, const std::string &name);

} // namespace equistride
