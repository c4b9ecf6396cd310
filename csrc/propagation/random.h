// SplitMix64 (Steele, Lea, Flood 2014): one word of state, which a checkpoint can carry.
#pragma once

#include <cstdint>
#include <limits>

namespace equistride {

class SplitMix64 {
public:
    using result_type = std::uint64_t;

    explicit SplitMix64(std::uint64_t seed) : state_(mix(seed + STEP)) {}
    static SplitMix64 from_state(std::uint64_t state) {
        SplitMix64 made(0);
        made.state_ = state;
        return made;
    }

    static constexpr result_type min() { return 0; }
    static constexpr result_type max() { return std::numeric_limits<result_type>::max(); }
    result_type operator()() { return mix(state_ += STEP); }
    std::uint64_t state() const { return state_; }

private:
    static constexpr std::uint64_t STEP = 0x9e3779b97f4a7c15;
    static constexpr std::uint64_t mix(std::uint64_t z) {
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }

    std::uint64_t state_;
};

} // namespace equistride
