// A run of a propagator on one process, which has all atoms.
#pragma once

#include "propagation/propagation.h"

namespace equistride {

/// Tables of atomic masses differ in the fifth digit, isotopes by a per cent or more.
inline constexpr double SAME_MASS = 1e-3;

/// The atoms of a run; they stay while positions and velocities change.
struct Atoms {
    std::vector<std::string> elements; ///< symbols; where empty, they follow from the masses
    at::Tensor masses;                 ///< [N, 1] amu, float64, CPU: the engine's
    at::Tensor pbc;                    ///< [3] bool, CPU
};

/// Finds what its models must know of the atoms, and owns the models.
class EQUISTRIDE_API SystemPropagation {
public:
    /// Raises c10::ValueError where the model is no propagator, does not know an element, was trained with other masses
    /// or needs a box that is not there. The trained masses are used.
    /// @param device  where the network runs
    SystemPropagation(std::unique_ptr<Model> propagator, Atoms atoms, const Thermostat &thermostat, std::uint64_t seed,
                      at::Device device);

    void set_guard(const GuardSettings &settings, std::unique_ptr<Model> potential);
    /// Raises c10::ValueError where the box is not closed along all axes; else as Propagation.
    void set_barostat(const BarostatSettings &settings);
    /// States lie on the network's device from now on; see Propagation.
    void stay_on_device();
    /// One stride in a cell [3, 3] A (zeros along open axes), which a barostat replaces by another; `number` counts the
    /// strides of the run.
    void step(State &state, at::Tensor &cell, std::int64_t number);
    at::Tensor thermal_velocities(const at::Tensor &positions, double temperature, std::uint64_t seed) const;

    Propagation &run() { return *run_; }
    const Propagation &run() const { return *run_; }
    /// Wait for the device, and raise c10::ValueError where a stride so far was not fine.
    void finish();
    /// Whether what was raised last is about a stride of before, which was not waited for: a guard waits for each.
    bool failed() const { return !potential_.evaluation && network_.evaluation->failed(); }

private:
    /// A model on the atoms.
    struct Served {
        std::unique_ptr<Model> model;
        std::unique_ptr<SystemEvaluation> evaluation;
    };
    Served serve(std::unique_ptr<Model> model, const std::string &what) const;
    /// Call; where that raises for a stride of before, noise and guard are as they were when that began.
    template <class Body> void or_recall(Body body);

    Atoms atoms_;
    at::Device device_;
    Particles particles_;
    bool on_device_ = false;
    at::Tensor device_masses_;
    Served network_, potential_;
    std::optional<Propagation> run_;
    std::optional<Propagation::Memory> last_; // where the last stride on a device began, until it is known to be fine
};

} // namespace equistride
