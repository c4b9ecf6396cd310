#include "propagation/device_half_steps.h"

#include "operators.h"

#include <ATen/ATen.h>

namespace equistride {

DeviceHalfSteps::DeviceHalfSteps(const Particles &particles, at::Device device)
    : masses_(particles.masses.to(device)), ids_(at::tensor(particles.ids, at::kLong).to(device)),
      rotates_(particles.conserves_angular_momentum) {
    const auto made = [&](std::int64_t count, at::ScalarType type, at::Tensor &here, at::Tensor &there) {
        there = at::zeros({count}, at::TensorOptions().dtype(type).pinned_memory(device.is_cuda()));
        here = at::zeros({count}, at::TensorOptions().dtype(type).device(device));
    };
    made(3, at::kDouble, numbers_, host_numbers_);
    for (std::size_t k = 0; k < draws_.size(); k++)
        made(2, at::kLong, draws_[k], host_draws_[k]);
}

void DeviceHalfSteps::prepare(const Thermostat &thermostat, double dt, Draws &draws) {
    const HalfStep numbers = thermostat.half_step(dt);
    auto *to = host_numbers_.mutable_data_ptr<double>();
    to[0] = numbers.friction;
    to[1] = numbers.rescaling;
    to[2] = numbers.thermal;
    numbers_.copy_(host_numbers_, /*non_blocking=*/true);
    for (std::size_t k = 0; k < draws_.size(); k++) {
        const Draw draw = draws.next();
        auto *words = host_draws_[k].mutable_data_ptr<std::int64_t>();
        words[0] = static_cast<std::int64_t>(draw.seed);
        words[1] = static_cast<std::int64_t>(draw.number);
        draws_[k].copy_(host_draws_[k], /*non_blocking=*/true);
    }
}

at::Tensor DeviceHalfSteps::half_step(const State &state, std::size_t which) const {
    using Signature = at::Tensor(const at::Tensor &, const at::Tensor &, const at::Tensor &, const at::Tensor &,
                                 const at::Tensor &, const at::Tensor &, bool);
    static const auto op = find_operator<Signature>("equistride::thermostat");
    const auto there = [&](const at::Tensor &tensor) { return tensor.to(state.positions.device()); };
    return op.call(state.positions, state.velocities, there(masses_), there(ids_), there(draws_[which]),
                   there(numbers_), rotates_);
}

} // namespace equistride
