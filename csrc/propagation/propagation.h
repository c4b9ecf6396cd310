// A run of a propagator: thermostat, stride, thermostat; with a guard or without.
#pragma once

#include "propagation/guard.h"
#include "propagation/thermostat.h"

namespace equistride {

class EQUISTRIDE_API Propagation {
public:
    /// Raises c10::ValueError where the model is no propagator, does not know an element, was trained with other masses
    /// or needs a box that is not there.
    ///
    /// @param atoms   with the engine's masses, for which the trained ones are then used (tables differ in the fifth
    ///                digit); where `elements` is empty, elements follow from the masses
    /// @param device  where the network runs
    Propagation(std::unique_ptr<Model> propagator, Atoms atoms, Thermostat thermostat, std::uint64_t seed,
                at::Device device);

    void set_guard(const GuardSettings &settings, std::unique_ptr<Model> potential);
    void set_thermostat(const Thermostat &thermostat);

    /// One stride in a cell [3, 3] A (zeros along open axes); `number` counts the strides of the run.
    void step(State &state, const at::Tensor &cell, std::int64_t number);
    double stride_fs() const { return model_->metadata().stride_fs; }
    const Atoms &atoms() const { return atoms_; }
    /// Angular momentum is kept where there is no box.
    bool conserves_angular_momentum() const { return conserves_angular_momentum_; }
    Guard *guard() { return guard_ ? &*guard_ : nullptr; }

    /// Random state and the guard's: what a checkpoint needs beside the atoms.
    std::vector<std::int64_t> state() const;
    void set_state(const std::vector<std::int64_t> &state);

private:
    State network(const State &before, const at::Tensor &cell);

    std::unique_ptr<Model> model_;
    std::unique_ptr<SystemEvaluation> evaluation_;
    Atoms atoms_;
    Thermostat thermostat_;
    SplitMix64 random_;
    at::Device device_;
    bool conserves_angular_momentum_;
    std::optional<Guard> guard_;
};

} // namespace equistride
