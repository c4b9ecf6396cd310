#include "propagation/device_half_steps.h"

#include "operators.h"

#include <ATen/ATen.h>

#include <bit>

namespace equistride {
namespace {

constexpr std::int64_t NUMBERS = 3, DRAW = 2, WORDS = NUMBERS + 2 * DRAW; // words of 64 bits

} // namespace

DeviceHalfSteps::DeviceHalfSteps(const Particles &particles, at::Device device)
    : masses_(particles.masses.to(device)), ids_(at::tensor(particles.ids, at::kLong).to(device)),
      words_(at::zeros({WORDS}, at::TensorOptions().dtype(at::kLong).device(device))),
      host_words_(at::zeros({WORDS}, at::TensorOptions().dtype(at::kLong).pinned_memory(device.is_cuda()))),
      rotates_(particles.conserves_angular_momentum) {}

void DeviceHalfSteps::prepare(const Thermostat &thermostat, double dt, Draws &draws) {
    const HalfStep numbers = thermostat.half_step(dt);
    auto *to = host_words_.mutable_data_ptr<std::int64_t>();
    for (const double number : {numbers.friction, numbers.rescaling, numbers.thermal})
        *to++ = std::bit_cast<std::int64_t>(number);
    for (int half = 0; half < 2; half++) {
        const Draw draw = draws.next();
        *to++ = static_cast<std::int64_t>(draw.seed);
        *to++ = static_cast<std::int64_t>(draw.number);
    }
    words_.copy_(host_words_, /*non_blocking=*/true);
}

at::Tensor DeviceHalfSteps::half_step(const State &state, std::size_t which) const {
    using Signature = at::Tensor(const at::Tensor &, const at::Tensor &, const at::Tensor &, const at::Tensor &,
                                 const at::Tensor &, const at::Tensor &, bool);
    static const auto op = find_operator<Signature>("equistride::thermostat");
    const auto there = [&](const at::Tensor &tensor) { return tensor.to(state.positions.device()); };
    const at::Tensor words = there(words_), numbers = words.narrow(0, 0, NUMBERS).view(at::kDouble),
                     draw = words.narrow(0, NUMBERS + static_cast<std::int64_t>(which) * DRAW, DRAW);
    return op.call(state.positions, state.velocities, there(masses_), there(ids_), draw, numbers, rotates_);
}

} // namespace equistride
