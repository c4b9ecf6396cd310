// The loops themselves, compiled once for each instruction set; see simd.h.
#include "atom_block/kernels.h"
#include "vectors.h"

#include <cmath>

namespace equistride {

namespace {

template <class Real> void add(const Real *a, const Real *b, int64_t count, Real *out) {
    over_vectors<Real>(count, VECTORS(c, lanes) { lanes.put(out + c, 0, lanes.get(a + c, 0) + lanes.get(b + c, 0)); });
}

// Scalars less their mean.
template <class Real> INLINE void centre(const Real *x, int64_t channels, Real *out) {
    Vector<Real> all = {};
    over_vectors<Real>(channels, VECTORS(c, lanes) { all += lanes.get(x + c, 0); });
    const Real mean = sum<Real>(all) / Real(channels);
    over_vectors<Real>(channels, VECTORS(c, lanes) { lanes.put(out + c, 0, lanes.get(x + c, 0) - mean); });
}

template <class Real>
INLINE Real mean_square(const AtomShape &shape, const RowNorm<Real> &norm, const Real *scalars, const Real *x) {
    Vector<Real> all = {};
    for (int64_t row = 0; row < shape.size; ++row) {
        const Real *const from = row == 0 ? scalars : x + row * shape.channels;
        Vector<Real> square = {};
        over_vectors<Real>(
            shape.channels, VECTORS(c, lanes) {
                const Vector<Real> value = lanes.get(from + c, 0);
                square += value * value;
            });
        all += norm.balance[row] * square;
    }
    return sum<Real>(all);
}

template <class Real> void norm(const AtomShape &shape, const RowNorm<Real> &norm, const Real *x, Real *out) {
    const int64_t channels = shape.channels;
    centre(x, channels, out);
    const Real scale = 1 / std::sqrt(mean_square(shape, norm, out, x) + norm.eps);
    over_vectors<Real>(
        channels, VECTORS(c, lanes) {
            lanes.put(out + c, 0,
                      lanes.get(out + c, 0) * scale * lanes.get(norm.weight + c, 0) + lanes.get(norm.bias + c, 0));
        });
    for (int64_t k = channels; k < shape.size * channels; k += channels)
        over_vectors<Real>(
            channels, VECTORS(c, lanes) {
                lanes.put(out + k + c, 0, lanes.get(x + k + c, 0) * scale * lanes.get(norm.weight + k + c, 0));
            });
}

// With y = s w x, s = (v + eps)^-1/2 and v = sum of b x^2: on x, s w g - s^3 b x (sum of w g x).
template <class Real>
void norm_back(const AtomShape &shape, const RowNorm<Real> &norm, const Real *x, const Real *grad, Real *scalars,
               Real *on_x) {
    const int64_t channels = shape.channels;
    centre(x, channels, scalars);
    const Real scale = 1 / std::sqrt(mean_square(shape, norm, scalars, x) + norm.eps);
    Vector<Real> along = {};
    for (int64_t row = 0; row < shape.size; ++row) {
        const int64_t at = row * channels;
        const Real *const from = row == 0 ? scalars : x + at;
        over_vectors<Real>(
            channels, VECTORS(c, lanes) {
                along += lanes.get(grad + at + c, 0) * lanes.get(norm.weight + at + c, 0) * lanes.get(from + c, 0);
            });
    }
    const Real less = scale * scale * scale * sum<Real>(along);
    for (int64_t row = 1; row < shape.size; ++row) {
        const Real factor = less * norm.balance[row];
        over_vectors<Real>(
            channels, VECTORS(c, lanes) {
                const int64_t at = row * channels + c;
                lanes.put(on_x + at, 0,
                          lanes.get(on_x + at, 0) + scale * lanes.get(norm.weight + at, 0) * lanes.get(grad + at, 0) -
                              factor * lanes.get(x + at, 0));
            });
    }
    over_vectors<Real>(
        channels, VECTORS(c, lanes) {
            lanes.put(scalars + c, 0,
                      scale * lanes.get(norm.weight + c, 0) * lanes.get(grad + c, 0) -
                          less * norm.balance[0] * lanes.get(scalars + c, 0));
        });
    centre(scalars, channels, scalars);
    add(on_x, scalars, channels, on_x);
}

template <class Real> void gate(const AtomShape &shape, const Real *inner, Real *out) {
    const int64_t h = shape.hidden;
    const Real *const rows = inner + shape.gates;
    over_vectors<Real>(
        h, VECTORS(c, lanes) {
            const Vector<Real> scalar = lanes.get(rows + c, 0);
            lanes.put(out + c, 0, scalar * sigmoid<Real>(scalar));
            for (int64_t l = 1; l <= shape.l_max; ++l) {
                const Vector<Real> z = lanes.get(inner + (l - 1) * h + c, 0),
                                   open = sigmoid<Real>(z * sigmoid<Real>(z));
                for (int64_t at = l * l * h + c; at < (l + 1) * (l + 1) * h; at += h)
                    lanes.put(out + at, 0, open * lanes.get(rows + at, 0));
            }
        });
}

template <class Real> INLINE Vector<Real> silu_slope(Vector<Real> x, Vector<Real> open) {
    return open * (1 + x * (1 - open));
}

template <class Real> void ungate(const AtomShape &shape, const Real *inner, const Real *grad, Real *on_inner) {
    const int64_t h = shape.hidden;
    const Real *const rows = inner + shape.gates;
    Real *const on_rows = on_inner + shape.gates;
    over_vectors<Real>(
        h, VECTORS(c, lanes) {
            const Vector<Real> scalar = lanes.get(rows + c, 0);
            lanes.put(on_rows + c, 0, lanes.get(grad + c, 0) * silu_slope<Real>(scalar, sigmoid<Real>(scalar)));
            for (int64_t l = 1; l <= shape.l_max; ++l) {
                const Vector<Real> z = lanes.get(inner + (l - 1) * h + c, 0), half = sigmoid<Real>(z),
                                   open = sigmoid<Real>(z * half);
                Vector<Real> on_gate = {};
                for (int64_t at = l * l * h + c; at < (l + 1) * (l + 1) * h; at += h) {
                    const Vector<Real> g = lanes.get(grad + at, 0);
                    on_gate += g * lanes.get(rows + at, 0);
                    lanes.put(on_rows + at, 0, g * open);
                }
                lanes.put(on_inner + (l - 1) * h + c, 0, on_gate * open * (1 - open) * silu_slope<Real>(z, half));
            }
        });
}

} // namespace

template <class Real, InstructionSet> const AtomKernels<Real> &atom_kernels() {
    static constexpr AtomKernels<Real> all = {add<Real>, norm<Real>, norm_back<Real>, gate<Real>, ungate<Real>};
    return all;
}
template const AtomKernels<float> &atom_kernels<float, InstructionSet::EQUISTRIDE_INSTRUCTION_SET>();
template const AtomKernels<double> &atom_kernels<double, InstructionSet::EQUISTRIDE_INSTRUCTION_SET>();

} // namespace equistride
