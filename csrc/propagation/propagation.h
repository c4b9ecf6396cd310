// A run of a propagator: thermostat, stride, thermostat; with a guard or without; moves of the box between strides.
#pragma once

#include "propagation/barostat.h"
#include "propagation/device_half_steps.h"
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
    /// Raises c10::ValueError without a guard, whose potential says what moves cost, and without a thermostat.
    void set_barostat(const BarostatSettings &settings);
    void set_thermostat(const Thermostat &thermostat);

    /// From now on states lie on the network's device, and the host sees single numbers of them alone. Without a guard
    /// a stride is then one captured step, thermostat and all. What a stride made is looked at in the next one.
    /// @param network  the one that this was made with
    void stay_on_device(SystemEvaluation &network, const Particles &particles);

    /// One stride, and a move of the box where one is due, which changes the particles' cell; `number` counts the
    /// strides of the run. Where it raises, all is as it was before it; on a device that may be for the stride before,
    /// and to go back to where that began is the caller's business.
    void step(State &state, Particles &particles, std::int64_t number);
    /// From the next stride on, of any length that the network was trained for; raises c10::ValueError for another.
    void set_stride(double stride_fs);
    double stride_fs() const { return network_.model().metadata().stride_fs; }

    /// What strides change here.
    struct Memory {
        Draws draws;
        std::optional<Guard> guard;
        std::optional<Barostat> barostat;
    };
    Memory memory() const { return {draws_, guard_, barostat_}; }
    void recall(const Memory &memory);
    Guard *guard() { return guard_ ? &*guard_ : nullptr; }
    const Barostat *barostat() const { return barostat_ ? &*barostat_ : nullptr; }

    /// What goes on from here needs beside the atoms: the stride, random state, the guard's and the barostat's.
    std::string state() const;
    void set_state(const std::string &state);

private:
    State stride(const State &before, const Particles &particles);
    void move(State &state, Particles &particles, std::int64_t number);
    void half_step(State &state, const Particles &particles, std::size_t which);
    void arrange();

    Evaluation &network_;
    const Communicator &communicator_;
    Thermostat thermostat_;
    Draws draws_;
    std::optional<Guard> guard_;
    std::optional<Barostat> barostat_;
    SystemEvaluation *on_device_ = nullptr;
    std::optional<DeviceHalfSteps> device_;
};

} // namespace equistride
