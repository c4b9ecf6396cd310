// Evaluator of plain modules that obey the contract of openmm-torch's TorchForce.
#pragma once

#include "evaluator.h"

namespace equistride {

std::unique_ptr<Evaluator> make_torchforce_evaluator(const EquistrideForce &force, at::Device device,
                                                     at::ScalarType dtype);

} // namespace equistride
