// Numbers that belong to a seed, a draw and an atom, by Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): nothing is
// carried from one to the next, so they are the same on a CPU and a GPU, and for any number of threads and processes.
// Host and device.
#pragma once

#include "host_device.h"

#include <cmath>
#include <cstdint>

namespace equistride {

/// Four words of a key and a counter.
struct Philox {
    std::uint32_t of[4];

    EQUISTRIDE_HD Philox(std::uint64_t key, std::uint64_t low, std::uint64_t high)
        : of{std::uint32_t(low), std::uint32_t(low >> 32), std::uint32_t(high), std::uint32_t(high >> 32)} {
        std::uint32_t k0 = std::uint32_t(key), k1 = std::uint32_t(key >> 32);
        for (int round = 0; round < 10; ++round) {
            const std::uint64_t a = std::uint64_t(0xd2511f53u) * of[0], b = std::uint64_t(0xcd9e8d57u) * of[2];
            const std::uint32_t next[4] = {std::uint32_t(b >> 32) ^ of[1] ^ k0, std::uint32_t(b),
                                           std::uint32_t(a >> 32) ^ of[3] ^ k1, std::uint32_t(a)};
            for (int k = 0; k < 4; ++k)
                of[k] = next[k];
            k0 += 0x9e3779b9u;
            k1 += 0xbb67ae85u;
        }
    }
};

/// The numbers of one atom in one draw, one after the other.
class Noise {
public:
    /// @param id  below 2^48; that of a number that belongs to no atom is 0
    EQUISTRIDE_HD Noise(std::uint64_t seed, std::uint64_t draw, std::uint64_t id) : seed_(seed), draw_(draw), id_(id) {}

    /// Between 0 and 1, of which it is neither.
    EQUISTRIDE_HD double uniform() {
        if (!has_word_)
            refill();
        has_word_ = !has_word_;
        return as_uniform(has_word_ ? words_[0] : words_[1]);
    }

    /// Of mean 0 and variance 1 (Box and Muller 1958).
    EQUISTRIDE_HD double normal() {
        if (has_normal_) {
            has_normal_ = false;
            return normal_;
        }
        const double length = std::sqrt(-2.0 * std::log(uniform())), angle = 6.283185307179586477 * uniform();
        normal_ = length * std::sin(angle);
        has_normal_ = true;
        return length * std::cos(angle);
    }

    /// Of the gamma distribution of this shape and scale 1 (Marsaglia and Tsang 2000).
    EQUISTRIDE_HD double gamma(double shape) {
        const double boost = shape < 1 ? std::pow(uniform(), 1.0 / shape) : 1.0;
        const double d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
        for (;;) {
            const double x = normal(), root = 1.0 + c * x, v = root * root * root;
            if (root > 0 && std::log(uniform()) < 0.5 * x * x + d - d * v + d * std::log(v))
                return boost * d * v;
        }
    }

private:
    EQUISTRIDE_HD void refill() {
        const Philox made(seed_, id_ | std::uint64_t(block_++) << 48, draw_);
        for (int k = 0; k < 2; ++k)
            words_[k] = std::uint64_t(made.of[2 * k]) << 32 | made.of[2 * k + 1];
    }
    EQUISTRIDE_HD static double as_uniform(std::uint64_t word) { return (double(word >> 11) + 0.5) * 0x1p-53; }

    std::uint64_t seed_, draw_, id_, words_[2] = {0, 0};
    std::uint16_t block_ = 0;
    double normal_ = 0;
    bool has_word_ = false, has_normal_ = false;
};

/// What the numbers of a draw are made of.
struct Draw {
    std::uint64_t seed, number;

    EQUISTRIDE_HD Noise of(std::uint64_t id) const { return {seed, number, id}; }
};

/// The draws of a run, one after the other; seed and number are all that a checkpoint must carry. Each stride of a
/// network that makes several has a series of its own: integrators of one seed that take turns have other noise.
struct Draws {
    std::uint64_t seed = 0, number = 0, series = 0;

    Draw next() { return {seed + series * 0x9e3779b97f4a7c15U, number++}; }
};

} // namespace equistride
