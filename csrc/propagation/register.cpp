// torch.classes.equistride.Propagation: strides, thermostats and guard for engines in Python; and the momenta.
#include "propagation/system_propagation.h"

#include <ATen/ATen.h>
#include <torch/custom_class.h>
#include <torch/library.h>

namespace equistride {
namespace {

c10::Dict<std::string, double> dictionary(const std::map<std::string, double> &values) {
    c10::Dict<std::string, double> made;
    for (const auto &[name, value] : values)
        made.insert(name, value);
    return made;
}

struct TorchPropagation : torch::CustomClassHolder {
    std::unique_ptr<SystemPropagation> system;

    /// masses [N] amu, pbc [3] bool; thermostat (csvr, langevin, none) with temperature [K] and time [fs]; another with
    /// set_thermostat().
    TorchPropagation(const std::string &artifact, const std::vector<std::string> &elements, const at::Tensor &masses,
                     const at::Tensor &pbc, const std::string &thermostat, double temperature, double time,
                     std::int64_t seed, const std::string &device) {
        Atoms atoms{elements, masses.to(at::kCPU, at::kDouble).reshape({-1, 1}), pbc.to(at::kCPU, at::kBool)};
        system = std::make_unique<SystemPropagation>(Model::load(artifact), std::move(atoms),
                                                     Thermostat{thermostat, temperature, time, 0.0},
                                                     static_cast<std::uint64_t>(seed), at::Device(device));
    }

    void set_guard(const std::string &artifact, const std::string &mode, std::int64_t every, double bound, bool rescale,
                   double substep) {
        system->set_guard({mode, every, bound, rescale, substep}, Model::load(artifact));
    }

    void set_barostat(double pressure, std::int64_t every, const std::string &axes) {
        system->set_barostat({pressure, every, axes});
    }

    void set_thermostat(const std::string &kind, double temperature, double time, double tau) {
        system->run().set_thermostat({kind, temperature, time, tau});
    }

    void stay_on_device() { system->stay_on_device(); }
    void finish() { system->finish(); }

    double stride_fs() const { return system->run().stride_fs(); }
    void set_stride(double stride_fs) { system->run().set_stride(stride_fs); }

    /// New positions [N, 3] A, velocities [N, 3] A/fs and cell [3, 3] A after stride `number`.
    std::tuple<at::Tensor, at::Tensor, at::Tensor> step(const at::Tensor &positions, const at::Tensor &velocities,
                                                        const at::Tensor &cell, std::int64_t number) {
        State state{positions.to(at::kDouble), velocities.to(at::kDouble)};
        at::Tensor box = cell.to(at::kDouble);
        system->step(state, box, number);
        return {state.positions, state.velocities, box};
    }

    at::Tensor thermal_velocities(const at::Tensor &positions, double temperature, std::int64_t seed) {
        return system->thermal_velocities(positions.to(at::kDouble), temperature, static_cast<std::uint64_t>(seed));
    }

    c10::Dict<std::string, double> statistics() {
        Guard *guard = system->run().guard();
        return dictionary(guard ? guard->statistics() : std::map<std::string, double>{});
    }
    c10::Dict<std::string, double> barostat_statistics() {
        const Barostat *barostat = system->run().barostat();
        return dictionary(barostat ? barostat->statistics() : std::map<std::string, double>{});
    }

    void reset() {
        if (Guard *guard = system->run().guard())
            guard->reset();
    }
    std::string state() const { return system->run().state(); }
    void set_state(const std::string &state) { system->run().set_state(state); }
};

std::tuple<at::Tensor, at::Tensor> kept(const at::Tensor &positions, const at::Tensor &velocities,
                                        const at::Tensor &displacements, const at::Tensor &after,
                                        const at::Tensor &masses, double stride_fs, bool conserves_angular_momentum) {
    const Stride stride = keep_momenta_by_sums({positions, velocities}, {displacements, after}, masses, stride_fs,
                                               conserves_angular_momentum);
    return {stride.displacements, stride.velocities};
}

// draw [2] int64: seed and number; numbers [3] float64: those of a HalfStep.
at::Tensor thermostat(const at::Tensor &positions, const at::Tensor &velocities, const at::Tensor &masses,
                      const at::Tensor &ids, const at::Tensor &draw, const at::Tensor &numbers,
                      bool conserves_angular_momentum) {
    const auto *words = draw.const_data_ptr<std::int64_t>();
    const auto *values = numbers.const_data_ptr<double>();
    const auto *first = ids.const_data_ptr<std::int64_t>();
    Particles particles;
    particles.masses = masses;
    particles.ids.assign(first, first + ids.numel());
    particles.count = ids.numel();
    particles.conserves_angular_momentum = conserves_angular_momentum;
    return thermalized({positions, velocities}, particles, {values[0], values[1], values[2]},
                       {static_cast<std::uint64_t>(words[0]), static_cast<std::uint64_t>(words[1])});
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, CPU, m) {
    m.impl("keep_momenta", kept);
    m.impl("thermostat", thermostat);
}

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    m.def("keep_momenta(Tensor positions, Tensor velocities, Tensor displacements, Tensor after, Tensor masses, "
          "float stride_fs, bool conserves_angular_momentum) -> (Tensor displacements, Tensor velocities)");
    m.def("thermostat(Tensor positions, Tensor velocities, Tensor masses, Tensor ids, Tensor draw, Tensor numbers, "
          "bool conserves_angular_momentum) -> Tensor");
    m.class_<TorchPropagation>("Propagation")
        .def(torch::init<const std::string &, const std::vector<std::string> &, const at::Tensor &, const at::Tensor &,
                         const std::string &, double, double, std::int64_t, const std::string &>())
        .def("set_guard", &TorchPropagation::set_guard)
        .def("set_barostat", &TorchPropagation::set_barostat)
        .def("set_thermostat", &TorchPropagation::set_thermostat)
        .def("stay_on_device", &TorchPropagation::stay_on_device)
        .def("finish", &TorchPropagation::finish)
        .def("stride_fs", &TorchPropagation::stride_fs)
        .def("set_stride", &TorchPropagation::set_stride)
        .def("step", &TorchPropagation::step)
        .def("thermal_velocities", &TorchPropagation::thermal_velocities)
        .def("statistics", &TorchPropagation::statistics)
        .def("barostat_statistics", &TorchPropagation::barostat_statistics)
        .def("reset", &TorchPropagation::reset)
        .def("state", &TorchPropagation::state)
        .def("set_state", &TorchPropagation::set_state);
}

} // namespace equistride
