// A run of a propagator: thermostat, stride, thermostat; with a guard or without.
#pragma once

#include "propagation/guard.h"
#include "propagation/thermostat.h"

namespace equistride {

/// On this process's atoms; every process must call it together.
class EQUISTRIDE_API Propagation {
public:
    /// @param network  evaluates a propagator; it and the communicator must outlive this
    Propagation(Evaluation &network, const Thermostat &thermostat, std::uint64_t seed,
                const Communicator &communicator = Communicator::self());

    /// @param potential  of the same atoms; must outlive this
    void set_guard(const GuardSettings &settings, Evaluation &potential);
    void set_thermostat(const Thermostat &thermostat);

    /// One stride; `number` counts those of the run. Where it raises, all is as it was before.
    void step(State &state, const Particles &particles, std::int64_t number);
    double stride_fs() const { return network_.model().metadata().stride_fs; }
    Guard *guard() { return guard_ ? &*guard_ : nullptr; }

    /// What goes on from here needs beside the atoms: random state and the guard's.
    std::string state() const;
    void set_state(const std::string &state);

private:
    State stride(const State &before, const Particles &particles);

    Evaluation &network_;
    const Communicator &communicator_;
    Thermostat thermostat_;
    SplitMix64 random_;
    std::optional<Guard> guard_;
};

} // namespace equistride
