// The AOTInductor container.
#pragma once

#include "model/model.h"

namespace equistride {

std::unique_ptr<Model> load_aoti(std::shared_ptr<const std::string> bytes, Metadata metadata, const std::string &name);

} // namespace equistride
