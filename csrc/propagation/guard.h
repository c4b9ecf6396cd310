// The guard: checks strides of a propagator against the energy of a potential, and repairs those that break a bound.
#pragma once

#include "propagation/checkpoint.h"
#include "propagation/mechanics.h"

#include <functional>
#include <optional>

namespace equistride {

struct EQUISTRIDE_API GuardSettings {
    /// What happens to a stride that breaks the bound: "correct" (velocities are scaled back to the energy, or where
    /// that cannot be the stride is rejected), "reject" (done again by velocity Verlet), "midpoint" (the network's
    /// stride starts an implicit-midpoint step, which is rejected where it does not converge).
    std::string mode = "correct";
    std::int64_t every = 1; ///< strides between checks
    double bound = 0;       ///< eV an atom: largest change of the total energy over a stride; infinity for none
    /// Scale velocities to the energy at every check: without a thermostat to that of the start, and at each stride by
    /// what the network was found to lose or gain in one.
    bool rescale = false;
    double substep = 1; ///< fs, longest step of velocity Verlet

    /// Raises c10::ValueError for numbers that make no sense.
    void check() const;
};

class EQUISTRIDE_API Guard {
public:
    struct StrideFacts {
        std::int64_t number = 0; ///< of the stride in the run
        double stride_fs = 0;
        bool conserves_energy = false; ///< no thermostat, so that one energy holds for all of the run
        bool by_network = true;        ///< not by mechanics, because the network refused
        double given = 0;              ///< eV, what the guard has added to what the network made
    };

    Guard(GuardSettings settings, Potential potential);

    /// Make one stride and look after it.
    /// @param network  makes the network's stride; may raise c10::ValueError, then on all processes
    State stride(const std::function<State()> &network, const State &before, const Particles &particles,
                 StrideFacts facts);

    /// Forget the energies of before: positions, velocities or the cell were set from outside.
    void reset() {
        start_ = static_ = std::nullopt;
        trend_ = 0;
    }

    Potential &potential() { return potential_; }

    /// strides, checks, violations, corrected, rejected, refused; mean, rms and largest change of energy over a stride
    /// [eV/atom], by the network alone; evaluations of the potential; seconds of the guard and of the network.
    std::map<std::string, double> statistics() const;
    void save(Checkpoint &checkpoint) const;
    void load(const Checkpoint &checkpoint);

private:
    struct Counts {
        double strides = 0, checks = 0, violations = 0, corrected = 0, rejected = 0, refused = 0, evaluations = 0;
        double sum = 0, squares = 0, largest = 0, compared = 0, guard_seconds = 0, network_seconds = 0;
    };
    static const std::map<std::string, double Counts::*> FIELDS;

    void check(State &after, const State &before, const Particles &particles, const StrideFacts &facts);
    void repair(State &after, const State &before, const Particles &particles, double energy);
    double energy(const State &state, const Particles &particles);
    bool scale(State &state, const Particles &particles, double energy);
    bool heat(State &state, const Particles &particles, double energy);
    void learn(double excess, double kinetic);
    State mechanics(const State &before, const Particles &particles);

    GuardSettings settings_;
    Potential potential_;
    double stride_fs_ = 0;         // of the last stride; 0 where not known
    std::optional<double> start_;  // eV, total energy of the start
    std::optional<double> static_; // eV, potential energy where the last stride ended
    double trend_ = 0;             // eV, what a stride is given back, as the checks so far have it
    Counts counts_;
};

} // namespace equistride
