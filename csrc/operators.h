// Our operators, to be called through torch's dispatcher.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>

namespace equistride {

/// The operator of this name, whose arguments are those of a function with this type.
template <class Function> auto find_operator(const char *name) {
    return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Function>();
}

} // namespace equistride
