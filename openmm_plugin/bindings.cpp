// equistride._openmm: makes EquistrideForce objects and hands them to OpenMM's own (SWIG) Python module.
// The Python class equistride.engines.openmm.Force holds the SWIG object; each function here takes it.
#include "errors.h"
#include "force.h"
#include "model/archive.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wcast-function-type"
#include "swigpyrun.h"
#pragma GCC diagnostic pop

namespace py = pybind11;
using equistride::EquistrideForce;
using OpenMM::OpenMMException;

namespace {

swig_type_info *force_type() {
    static swig_type_info *type = SWIG_TypeQuery("OpenMM::Force *");
    if (!type)
        throw OpenMMException(
            "openmm's Python module uses another SWIG runtime than equistride was built for; expected "
            "openmm 8.6.1 or a later 8.6; build equistride again for this openmm");
    return type;
}

EquistrideForce *find(const py::object &object) {
    void *pointer = nullptr;
    if (!SWIG_IsOK(SWIG_ConvertPtr(object.ptr(), &pointer, force_type(), 0)) || !pointer)
        return nullptr;
    return dynamic_cast<EquistrideForce *>(static_cast<OpenMM::Force *>(pointer));
}

EquistrideForce &get(const py::object &object) {
    EquistrideForce *force = find(object);
    if (!force)
        throw OpenMMException("this is no equistride force; expected an equistride.engines.openmm.Force; found " +
                              py::repr(py::type::of(object)).cast<std::string>());
    return *force;
}

py::object new_force(const std::string &model, const std::string &file,
                     const std::map<std::string, std::string> &properties) {
    force_type();
    auto bytes = std::make_shared<const std::string>(model);
    OpenMM::Force *force = new EquistrideForce(std::move(bytes), file, properties);
    return py::reinterpret_steal<py::object>(
        SWIG_NewPointerObj(force, force_type(), SWIG_POINTER_OWN | SWIG_POINTER_NOSHADOW));
}

} // namespace

PYBIND11_MODULE(_openmm, m) {
    m.doc() = "The compiled OpenMM force; equistride.engines.openmm is its public face.";
    py::module_::import("openmm");
    py::register_exception_translator([](std::exception_ptr p) {
        const auto raise = [](const char *message) {
            py::set_error(py::module_::import("equistride.errors").attr("EquistrideError"), message);
        };
        try {
            if (p)
                std::rethrow_exception(p);
        } catch (const OpenMMException &error) {
            raise(error.what());
        } catch (const c10::Error &error) {
            raise(error.what_without_backtrace());
        }
    });

    m.def("new_force",
          [](const py::bytes &model, const std::string &file, const std::map<std::string, std::string> &p) {
              return new_force(std::string(model), file, p);
          });
    m.def("require", [](const py::object &o) { get(o); });
    m.def("is_ours", [](const py::object &o) { return find(o) != nullptr; });
    m.def("get_file", [](const py::object &o) { return get(o).getFile(); });
    m.def("get_model", [](const py::object &o) { return py::bytes(*get(o).getModel()); });
    m.def("is_artifact", [](const py::object &o) { return get(o).isArtifact(); });
    m.def("get_metadata", [](const py::object &o) { return get(o).getMetadata().text; });
    m.def("set_elements", [](const py::object &o, const std::vector<std::string> &v) { get(o).setElements(v); });
    m.def("get_elements", [](const py::object &o) { return get(o).getElements(); });
    m.def("set_particles", [](const py::object &o, const std::vector<int> &v) { get(o).setParticles(v); });
    m.def("get_particles", [](const py::object &o) { return get(o).getParticles(); });
    m.def("set_periodic", [](const py::object &o, bool v) { get(o).setUsesPeriodicBoundaryConditions(v); });
    m.def("set_outputs_forces", [](const py::object &o, bool v) { get(o).setOutputsForces(v); });
    m.def("get_outputs_forces", [](const py::object &o) { return get(o).getOutputsForces(); });
    m.def("num_parameters", [](const py::object &o) { return get(o).getNumGlobalParameters(); });
    m.def("add_parameter",
          [](const py::object &o, const std::string &n, double v) { return get(o).addGlobalParameter(n, v); });
    m.def("get_parameter_name", [](const py::object &o, int i) { return get(o).getGlobalParameterName(i); });
    m.def("set_parameter_name",
          [](const py::object &o, int i, const std::string &n) { get(o).setGlobalParameterName(i, n); });
    m.def("get_parameter_default", [](const py::object &o, int i) { return get(o).getGlobalParameterDefaultValue(i); });
    m.def("set_parameter_default",
          [](const py::object &o, int i, double v) { get(o).setGlobalParameterDefaultValue(i, v); });
    m.def("num_derivatives", [](const py::object &o) { return get(o).getNumEnergyParameterDerivatives(); });
    m.def("add_derivative", [](const py::object &o, const std::string &n) { get(o).addEnergyParameterDerivative(n); });
    m.def("get_derivative_name", [](const py::object &o, int i) { return get(o).getEnergyParameterDerivativeName(i); });
    m.def("set_property",
          [](const py::object &o, const std::string &n, const std::string &v) { get(o).setProperty(n, v); });
    m.def("get_properties", [](const py::object &o) { return get(o).getProperties(); });
}
