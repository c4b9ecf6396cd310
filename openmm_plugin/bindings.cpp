// equistride._openmm: makes forces and integrators and hands them to OpenMM's own (SWIG) Python module.
// The Python classes Force and TrajCastIntegrator of equistride.engines.openmm hold the SWIG object; each function here
// takes it.
#include "artifact/archive.h"
#include "errors.h"
#include "force.h"
#include "integrator.h"
#include "propagator_mark.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wcast-function-type"
#include "swigpyrun.h"
#pragma GCC diagnostic pop

namespace py = pybind11;
using equistride::EquistrideForce;
using equistride::TrajCastIntegrator;
using OpenMM::OpenMMException;

namespace {

swig_type_info *swig_type(const char *name) {
    swig_type_info *type = SWIG_TypeQuery(name);
    if (!type)
        throw OpenMMException(
            "openmm's Python module uses another SWIG runtime than equistride was built for; expected "
            "openmm 8.6.1 or a later 8.6; build equistride again for this openmm");
    return type;
}

swig_type_info *type_of(const OpenMM::Force *) {
    static swig_type_info *type = swig_type("OpenMM::Force *");
    return type;
}

swig_type_info *type_of(const OpenMM::Integrator *) {
    static swig_type_info *type = swig_type("OpenMM::Integrator *");
    return type;
}

/// The C++ object of the class `Ours` in OpenMM's Python object, or null.
template <typename Ours, typename Base> Ours *find(const py::object &object) {
    void *pointer = nullptr;
    if (!SWIG_IsOK(SWIG_ConvertPtr(object.ptr(), &pointer, type_of(static_cast<Base *>(nullptr)), 0)) || !pointer)
        return nullptr;
    return dynamic_cast<Ours *>(static_cast<Base *>(pointer));
}

EquistrideForce &get(const py::object &object) {
    auto *force = find<EquistrideForce, OpenMM::Force>(object);
    if (!force)
        throw OpenMMException("this is no equistride force; expected an equistride.engines.openmm.Force; found " +
                              py::repr(py::type::of(object)).cast<std::string>());
    return *force;
}

TrajCastIntegrator &integrator_of(const py::object &object) {
    auto *integrator = find<TrajCastIntegrator, OpenMM::Integrator>(object);
    if (!integrator)
        throw OpenMMException("this is no propagating integrator; expected an "
                              "equistride.engines.openmm.TrajCastIntegrator; found " +
                              py::repr(py::type::of(object)).cast<std::string>());
    return *integrator;
}

template <typename Base> py::object hand_over(Base *made) {
    return py::reinterpret_steal<py::object>(
        SWIG_NewPointerObj(made, type_of(made), SWIG_POINTER_OWN | SWIG_POINTER_NOSHADOW));
}

std::shared_ptr<const std::string> shared(const py::bytes &content) {
    return std::make_shared<const std::string>(content);
}

py::object new_force(const py::bytes &model, const std::string &file,
                     const std::map<std::string, std::string> &properties) {
    type_of(static_cast<OpenMM::Force *>(nullptr));
    return hand_over<OpenMM::Force>(new EquistrideForce(shared(model), file, properties));
}

py::object new_integrator(const py::bytes &model, const std::string &file) {
    type_of(static_cast<OpenMM::Integrator *>(nullptr));
    return hand_over<OpenMM::Integrator>(new TrajCastIntegrator(shared(model), file));
}

void bind_integrator(py::module_ &m) {
    m.def("new_mark", [] { return hand_over<OpenMM::Force>(new equistride::PropagatorMark); });
    m.def("new_integrator", new_integrator);
    m.def("require_integrator", [](const py::object &o) { integrator_of(o); });
    m.def("is_our_integrator",
          [](const py::object &o) { return find<TrajCastIntegrator, OpenMM::Integrator>(o) != nullptr; });
    m.def("integrator_file", [](const py::object &o) { return integrator_of(o).getFile(); });
    m.def("integrator_metadata", [](const py::object &o) { return integrator_of(o).getMetadata().text; });
    m.def("set_integrator_elements",
          [](const py::object &o, const std::vector<std::string> &v) { integrator_of(o).setElements(v); });
    m.def("integrator_elements", [](const py::object &o) { return integrator_of(o).getElements(); });
    m.def("set_integrator_periodic",
          [](const py::object &o, bool v) { integrator_of(o).setUsesPeriodicBoundaryConditions(v); });
    m.def("integrator_periodic", [](const py::object &o) { return integrator_of(o).usesPeriodicBoundaryConditions(); });
    m.def("set_topology_box", [](const py::object &o, const std::vector<std::array<double, 3>> &v) {
        std::vector<OpenMM::Vec3> vectors;
        for (const auto &[x, y, z] : v)
            vectors.emplace_back(x, y, z);
        integrator_of(o).setTopologyBox(vectors);
    });
    m.def("set_thermostat", [](const py::object &o, const std::string &kind, double temperature, double time,
                               double tau) { integrator_of(o).setThermostat({kind, temperature, time, tau}); });
    m.def("get_thermostat", [](const py::object &o) {
        const equistride::Thermostat &t = integrator_of(o).getThermostat();
        return py::make_tuple(t.kind, t.temperature, t.time, t.tau);
    });
    m.def("set_seed", [](const py::object &o, int v) { integrator_of(o).setRandomNumberSeed(v); });
    m.def("get_seed", [](const py::object &o) { return integrator_of(o).getRandomNumberSeed(); });
    m.def("constraint_tolerance",
          [](const py::object &o) { return integrator_of(o).OpenMM::Integrator::getConstraintTolerance(); });
    m.def("set_device", [](const py::object &o, const std::string &v) { integrator_of(o).setDevice(v); });
    m.def("get_device", [](const py::object &o) { return integrator_of(o).getDevice(); });
    m.def("set_guard", [](const py::object &o, const py::bytes &model, const std::string &file, const std::string &mode,
                          std::int64_t every, double bound, bool rescale, double substep) {
        integrator_of(o).setGuard({shared(model), file, {mode, every, bound, rescale, substep}});
    });
    m.def("guard_statistics", [](const py::object &o) { return integrator_of(o).getGuardStatistics(); });
    m.def("set_barostat", [](const py::object &o, double pressure, std::int64_t every, const std::string &axes) {
        integrator_of(o).setBarostat({pressure, every, axes});
    });
    m.def("barostat_statistics", [](const py::object &o) { return integrator_of(o).getBarostatStatistics(); });
}

} // namespace

PYBIND11_MODULE(_openmm, m) {
    m.doc() = "The compiled OpenMM force and integrator; equistride.engines.openmm is their public face.";
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

    m.def("new_force", new_force);
    m.def("require", [](const py::object &o) { get(o); });
    m.def("is_ours", [](const py::object &o) { return find<EquistrideForce, OpenMM::Force>(o) != nullptr; });
    m.def("get_file", [](const py::object &o) { return get(o).getFile(); });
    m.def("get_model", [](const py::object &o) { return py::bytes(*get(o).getModel()); });
    m.def("is_artifact", [](const py::object &o) { return get(o).isArtifact(); });
    m.def("get_metadata", [](const py::object &o) { return get(o).getMetadata().text; });
    m.def("set_elements", [](const py::object &o, const std::vector<std::string> &v) { get(o).setElements(v); });
    m.def("get_elements", [](const py::object &o) { return get(o).getElements(); });
    m.def("set_particles", [](const py::object &o, const std::vector<int> &v) { get(o).setParticles(v); });
    m.def("get_particles", [](const py::object &o) { return get(o).getParticles(); });
    m.def("set_bonds", [](const py::object &o, const std::vector<std::pair<int, int>> &v) { get(o).setBonds(v); });
    m.def("get_bonds", [](const py::object &o) { return get(o).getBonds(); });
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
    bind_integrator(m);
}
