// Evaluator of equistride artifacts.
#pragma once

#include "evaluator.h"

namespace equistride {

std::unique_ptr<Evaluator> make_artifact_evaluator(const EquistrideForce &force, std::int64_t particles,
                                                   at::Device device, at::ScalarType dtype);

} // namespace equistride
