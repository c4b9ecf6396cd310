// Vectors of EQUISTRIDE_VECTOR_BYTES, for loops that are compiled once for each instruction set. Nothing but templates
// of an unnamed namespace may live in such files, or the linker could hand code of one instruction set to another.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define INLINE __attribute__((always_inline)) inline

namespace equistride {

namespace {

template <class Real> struct Simd {
    typedef Real type __attribute__((vector_size(EQUISTRIDE_VECTOR_BYTES)));
    static constexpr int lanes = EQUISTRIDE_VECTOR_BYTES / int(sizeof(Real));
};
template <class Real> using Vector = typename Simd<Real>::type;

template <class Real> INLINE Vector<Real> load(const Real *from) {
    Vector<Real> v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class Real> INLINE void store(Real *to, Vector<Real> v) { std::memcpy(to, &v, sizeof v); }

// The first n lanes; the others are zero.
template <class Real> INLINE Vector<Real> load_part(const Real *from, int n) {
#if defined(__AVX512F__)
    if constexpr (sizeof(Real) == 4)
        return Vector<Real>(_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), from));
    else
        return Vector<Real>(_mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), from));
#else
    Vector<Real> v = {};
    std::memcpy(&v, from, size_t(n) * sizeof(Real));
    return v;
#endif
}

template <class Real> INLINE void store_part(Real *to, Vector<Real> v, int n) {
#if defined(__AVX512F__)
    if constexpr (sizeof(Real) == 4)
        _mm512_mask_storeu_ps(to, __mmask16((1u << n) - 1), __m512(v));
    else
        _mm512_mask_storeu_pd(to, __mmask8((1u << n) - 1), __m512d(v));
#else
    std::memcpy(to, &v, size_t(n) * sizeof(Real));
#endif
}

template <class Real> INLINE Real sum(Vector<Real> v) {
    Real lane[Simd<Real>::lanes];
    store(lane, v);
    for (int half = Simd<Real>::lanes / 2; half > 0; half /= 2)
        for (int k = 0; k < half; ++k)
            lane[k] += lane[k + half];
    return lane[0];
}

template <class F, int... I> INLINE constexpr void each(F &&f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>{}), ...);
}
// Calls f with 0 to N - 1 as constants: a loop that is certain to be unrolled.
template <int N, class F> INLINE constexpr void each(F &&f) { each(f, std::make_integer_sequence<int, N>{}); }

#define EACH(index) [&](auto index) __attribute__((always_inline))

// V vectors of channels; where the path has fewer channels than one vector, V is 1 and n of its lanes count.
template <class Real, int V> struct Channels {
    int n;
    INLINE Vector<Real> get(const Real *from, int v) const {
        return V > 0 ? load(from + v * Simd<Real>::lanes) : load_part(from, n);
    }
    INLINE void put(Real *to, int v, Vector<Real> value) const {
        if constexpr (V > 0)
            store(to + v * Simd<Real>::lanes, value);
        else
            store_part(to, value, n);
    }
};

} // namespace

} // namespace equistride
