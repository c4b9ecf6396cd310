// Half-steps of a thermostat on tensors of the device where the network runs: what they need is there before the stride
// begins, so that a captured step can hold them.
#pragma once

#include "propagation/thermostat.h"

namespace equistride {

class DeviceHalfSteps {
public:
    /// @param particles  of a run on one process; masses may lie anywhere
    DeviceHalfSteps(const Particles &particles, at::Device device);

    /// The numbers and draws of the two half-steps, each of `dt` [fs], of the next stride; does not wait for the
    /// device.
    void prepare(const Thermostat &thermostat, double dt, Draws &draws);
    /// Velocities [n, 3] after half-step 0 or 1, on the device of the state.
    at::Tensor half_step(const State &state, std::size_t which) const;

private:
    at::Tensor masses_, ids_, words_, host_words_; // numbers and draws, which one copy brings there
    bool rotates_;
};

} // namespace equistride
