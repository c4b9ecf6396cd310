// What the code of a model may do: one list, and the look that holds a program to it.
#pragma once

#include <torch/csrc/jit/api/compilation_unit.h>

#include <string>
#include <string_view>

namespace equistride {

/// Before a source file of TorchScript is compiled: raises c10::ValueError where it names operators of other libraries.
void check_source(std::string_view text, const std::string &name);

/// Native classes that code may hold: none, or torch.classes.equistride.Model, whose data are an artifact that is read
/// as any other. Code may call its methods, and may not make one.
enum class Native { none, model };
bool allows(Native native, const c10::Type &type);

/// After it was compiled and before any of it runs: raises c10::ValueError, with the name of what it calls, unless all
/// functions of the unit are made of the operators on the list. `name` is the file's, for messages.
void check_code(torch::jit::CompilationUnit &unit, const std::string &name, Native native);

/// The same for a type that data or code name: raises c10::ValueError unless it is of plain values, tensors and classes
/// of the unit.
void check_type(const c10::Type &type, const torch::jit::CompilationUnit &unit, const std::string &name, Native native);

} // namespace equistride
