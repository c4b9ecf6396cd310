// What loops of several operators do vector by vector. For files that are compiled once for each instruction set, as
// simd.h has it.
#pragma once
#include "simd.h"

#include <type_traits>

namespace equistride {

namespace {

// Calls body(first, Channels) for so many channels, vector by vector.
template <class Real, class F> INLINE void over_vectors(int64_t count, F &&body) {
    int64_t c = 0;
    for (; c + Simd<Real>::lanes <= count; c += Simd<Real>::lanes)
        body(c, Channels<Real, 1>{0});
    if (c < count)
        body(c, Channels<Real, 0>{int(count - c)});
}
#define VECTORS(c, lanes) [&](int64_t c, auto lanes) __attribute__((always_inline))

// e^x by 2^n and a Taylor polynomial on |x| <= ln 2 / 2; arguments that overflow are clamped.
template <class Real> INLINE Vector<Real> exponential(Vector<Real> x) {
    using Bits = std::conditional_t<sizeof(Real) == 4, int32_t, int64_t>;
    typedef Bits Whole __attribute__((vector_size(EQUISTRIDE_VECTOR_BYTES)));
    constexpr bool single = sizeof(Real) == 4;
    constexpr Real top = single ? 87 : 708, round = single ? Real(12582912.0) : Real(6755399441055744.0);
    constexpr int terms = single ? 7 : 13, mantissa = single ? 23 : 52, offset = single ? 127 : 1023;
    x = x > top ? Vector<Real>{} + top : x;
    x = x < -top ? Vector<Real>{} - top : x;
    const Vector<Real> shifted = x * Real(1.4426950408889634) + round, n = shifted - round;
    constexpr Real high = single ? Real(0.693359375) : Real(0.693145751953125),
                   low = single ? Real(-2.12194440054690583e-4) : Real(1.42860682030941723212e-6);
    const Vector<Real> r = (x - n * high) - n * low;
    Vector<Real> sum = Vector<Real>{} + 1;
    each<terms>(EACH(k) { sum = 1 + r * sum * (Real(1) / Real(terms - k)); });
    const Whole exponent = (__builtin_convertvector(n, Whole) + offset) << mantissa;
    Vector<Real> scale;
    std::memcpy(&scale, &exponent, sizeof scale);
    return sum * scale;
}

template <class Real> INLINE Vector<Real> sigmoid(Vector<Real> x) { return 1 / (1 + exponential<Real>(-x)); }

} // namespace

} // namespace equistride
