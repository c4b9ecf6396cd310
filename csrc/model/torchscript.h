// The TorchScript container.
#pragma once

#include "model/model.h"

namespace equistride {

std::unique_ptr<Model> load_torchscript(std::shared_ptr<const std::string> bytes, Metadata metadata,
                                        const std::string &name);

} // namespace equistride
