// The guard: checks strides of a propagator against the energy of a potential, and mends those that break a bound.
#pragma once

#include "propagation/mechanics.h"

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>

namespace equistride {

struct EQUISTRIDE_API GuardSettings {
    /// What happens to a stride that breaks the bound: "correct" (velocities are scaled back to the energy, or where
    /// that cannot be the stride is rejected), "reject" (done again by velocity Verlet), "midpoint" (the network's
    /// stride starts an implicit-midpoint step, which is rejected where it does not converge).
    std::string mode = "correct";
    std::int64_t every = 1; ///< strides between checks
    double bound = 0;       ///< eV an atom: largest change of the total energy over a stride; infinity for none
    bool rescale = false; ///< scale velocities to the energy at every check: without a thermostat, to that of the start
    double substep = 1;   ///< fs, longest step of velocity Verlet

    /// Raises c10::ValueError for numbers that make no sense.
    void check() const;
};

class EQUISTRIDE_API Guard {
public:
    Guard(GuardSettings settings, Potential potential, at::Tensor masses, double stride);

    /// Make one stride and look after it.
    /// @param network   makes the network's stride; may raise c10::ValueError
    /// @param number    number of the stride in the run
    /// @param conserves_angular_momentum     whether angular momentum is kept
    /// @param conserves whether the run has no thermostat, so that one energy holds for all of it
    State stride(const std::function<State()> &network, const State &before, const at::Tensor &cell,
                 std::int64_t number, bool conserves_angular_momentum, bool conserves);

    /// Forget the energies of before: positions, velocities or the cell were set from outside.
    void reset() { start_ = static_ = std::nullopt; }

    /// strides, checks, violations, corrected, rejected, refused, iterations; mean, rms and largest change of energy
    /// over a stride [eV/atom]; evaluations of the potential; seconds of the guard and of the network.
    std::map<std::string, double> statistics() const;
    /// All that changes in a run, bit by bit, for checkpoints.
    std::vector<std::int64_t> state() const;
    void set_state(const std::vector<std::int64_t> &state);

private:
    struct Counts {
        double strides = 0, checks = 0, violations = 0, corrected = 0, rejected = 0, refused = 0, evaluations = 0;
        double sum = 0, squares = 0, largest = 0, compared = 0, guard_seconds = 0, network_seconds = 0;
    };

    using Words = std::array<std::int64_t, sizeof(Counts) / sizeof(std::int64_t)>;

    void look(State &after, const State &before, const at::Tensor &cell, bool conserves_angular_momentum,
              bool conserves, bool trusted);
    void mend(State &after, const State &before, const at::Tensor &cell, bool conserves_angular_momentum,
              double energy);
    double energy(const State &state, const at::Tensor &cell);
    bool scale(State &state, const at::Tensor &cell, bool conserves_angular_momentum, double energy);
    State mechanics(const State &before, const at::Tensor &cell);

    GuardSettings settings_;
    Potential potential_;
    at::Tensor masses_;
    double stride_;
    std::optional<double> start_;  // eV, total energy of the start
    std::optional<double> static_; // eV, potential energy where the last stride ended
    Counts counts_;
};

} // namespace equistride
