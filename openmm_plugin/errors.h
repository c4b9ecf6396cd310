// Every exception leaves the plugin as an OpenMMException: OpenMM's threads know no other, and die of it.
#pragma once

#include <c10/util/Exception.h>
#include <openmm/OpenMMException.h>

namespace equistride {

template <typename Function> auto rethrow_as_openmm(Function &&function) -> decltype(function()) {
    try {
        return function();
    } catch (const OpenMM::OpenMMException &) {
        throw;
    } catch (const c10::Error &error) {
        throw OpenMM::OpenMMException(error.what_without_backtrace());
    } catch (const std::exception &error) {
        throw OpenMM::OpenMMException(error.what());
    } catch (...) {
        throw OpenMM::OpenMMException("the model raised something that is no exception");
    }
}

} // namespace equistride
