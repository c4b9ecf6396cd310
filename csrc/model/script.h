// A TorchScript file, read without running any of it.
#pragma once

#include "artifact/content.h"
#include "model/allowed_code.h"
#include "visibility.h"

#include <torch/csrc/jit/api/module.h>

#include <string>

namespace equistride {

/// The module of a TorchScript file, on the CPU. All of its code is compiled and looked at (allowed_code.h), and each
/// value of its data is of the type that the code takes it for, before anything can run; its loops count their turns
/// (loops.h), so that it is not to be saved again. Raises c10::ValueError with a sentence where it may not run, or
/// cannot be read.
/// @param native  what force fields of others may hold, and artifacts may not
EQUISTRIDE_API torch::jit::Module read_script(const Content &content, const std::string &name,
                                              Native native = Native::none);

} // namespace equistride
