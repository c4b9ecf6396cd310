// The loops themselves, compiled once for each instruction set, with its vectors (EQUISTRIDE_VECTOR_BYTES) and the
// compiler's flags for it; see simd.h.
#include "simd.h"
#include "tensor_product/kernels.h"

namespace equistride {

namespace {

template <int V, class Real> INLINE void fetch(const Real *from) {
    for (int line = 0; line < V * EQUISTRIDE_VECTOR_BYTES; line += 64)
        __builtin_prefetch(reinterpret_cast<const char *>(from) + line, 0, 2);
}

// Which entries of M[m1, m3] can differ from zero. Paths with a degree above 2 take their matrix as dense.
constexpr bool fills(int l1, int l2, int l3, int row, int column) {
    for (int m2 = -l2; m2 <= l2; ++m2)
        if (couples(l1, l2, l3, row - l1, m2, column - l3))
            return true;
    return false;
}

constexpr int DENSE = -1; // as l1 and l2: known at run time only

// Vectors of channels that go together: as many as registers hold, where each takes `each` and all together `more`.
constexpr int vectors_together(int each, int more) {
    constexpr int registers = EQUISTRIDE_VECTOR_BYTES == 64 ? 32 : 16;
    for (int v = 4; v > 1; v /= 2)
        if (each * v + more <= registers)
            return v;
    return 1;
}

// Calls body(width, channel, channels left) for V vectors at a time, then one, then what is left (width 0).
template <class Real, int V, class F> INLINE void over_channels(int channels, F &&body) {
    constexpr int lanes = Simd<Real>::lanes;
    int channel = 0;
    for (; channel + V * lanes <= channels; channel += V * lanes)
        body(std::integral_constant<int, V>{}, channel, 0);
    if constexpr (V > 1)
        for (; channel + lanes <= channels; channel += lanes)
            body(std::integral_constant<int, 1>{}, channel, 0);
    if (channel < channels)
        body(std::integral_constant<int, 0>{}, channel, channels - channel);
}
#define CHANNELS(width, channel, part) [&](auto width, int channel, int part) __attribute__((always_inline))

template <class Real, int L1, int L2, int L3, int WIDTH>
INLINE void forward_channels(const ForwardStep<Real> &step, int channel, int part) {
    constexpr int V = WIDTH > 0 ? WIDTH : 1, D1 = 2 * L1 + 1, D3 = 2 * L3 + 1;
    using Vec = Vector<Real>;
    const Channels<Real, WIDTH> lanes{part};
    Vec out[D3][V];
    each<D3>(EACH(i) { each<V>(EACH(v) { out[i][v] = lanes.get(step.out + i * step.out_stride + channel, v); }); });
    for (int e = 0; e < step.edges; ++e) {
        const Real *x = step.x[e] + step.x_at + channel, *m = step.matrix + e;
        const Real *weights = step.weights[e] + step.weights_at + channel;
        if (step.ahead != 0)
            fetch<V>(weights + step.ahead);
        Vec w[V];
        each<V>(EACH(v) { w[v] = lanes.get(weights, v); });
        if constexpr (L1 == DENSE) {
            for (int row = 0; row < step.rows; ++row, x += step.channels, m += D3 * EDGE_BLOCK) {
                Vec z[V];
                each<V>(EACH(v) { z[v] = w[v] * lanes.get(x, v); });
                each<D3>(EACH(i) { each<V>(EACH(v) { out[i][v] += m[i * EDGE_BLOCK] * z[v]; }); });
            }
        } else if constexpr (L2 == 0) {
            each<V>(EACH(v) { w[v] = w[v] * m[0]; });
            each<D3>(EACH(i) { each<V>(EACH(v) { out[i][v] += w[v] * lanes.get(x + i * step.channels, v); }); });
        } else if constexpr (L3 == 0) {
            Vec t[V] = {};
            each<D1>(
                EACH(i) { each<V>(EACH(v) { t[v] += m[i * EDGE_BLOCK] * lanes.get(x + i * step.channels, v); }); });
            each<V>(EACH(v) { out[0][v] += w[v] * t[v]; });
        } else {
            each<D1>(EACH(row) {
                Vec z[V];
                each<V>(EACH(v) { z[v] = w[v] * lanes.get(x + row * step.channels, v); });
                each<D3>(EACH(i) {
                    if constexpr (fills(L1, L2, L3, row, i)) {
                        const Real factor = m[(row * D3 + i) * EDGE_BLOCK];
                        each<V>(EACH(v) { out[i][v] += factor * z[v]; });
                    }
                });
            });
        }
    }
    each<D3>(EACH(i) { each<V>(EACH(v) { lanes.put(step.out + i * step.out_stride + channel, v, out[i][v]); }); });
}

template <class Real, int L1, int L2, int L3> void forward(const ForwardStep<Real> &step) {
    over_channels<Real, vectors_together(2 * L3 + 3, 1)>(
        step.channels,
        CHANNELS(width, channel, part) { forward_channels<Real, L1, L2, L3, width>(step, channel, part); });
}

template <class Real, int L1, int L2, int L3, int WIDTH>
INLINE void backward_channels(const BackwardStep<Real> &step, int channel, int part) {
    constexpr int V = WIDTH > 0 ? WIDTH : 1, D1 = L1 == DENSE ? 1 : 2 * L1 + 1, D3 = 2 * L3 + 1;
    using Vec = Vector<Real>;
    const Channels<Real, WIDTH> lanes{part};
    Vec g[D3][V];
    each<D3>(EACH(i) { each<V>(EACH(v) { g[i][v] = lanes.get(step.grad + i * step.grad_stride + channel, v); }); });
    for (int e = 0; e < step.edges; ++e) {
        const Real *x = step.x[e] + step.x_at + channel, *m = step.matrix + e;
        Real *on_x = step.grad_x == nullptr ? nullptr : step.grad_x[e] + step.x_at + channel;
        Real *on_m = step.grad_matrix == nullptr ? nullptr : step.grad_matrix + e * step.matrix_stride;
        const Real *weights = step.weights[e] + step.weights_at + channel;
        Real *on_weights = step.grad_weights == nullptr ? nullptr : step.grad_weights[e] + step.weights_at + channel;
        // Lines that are about to be written are fetched too: a store that misses holds up all stores behind it.
        if (step.ahead != 0) {
            fetch<V>(weights + step.ahead);
            if (on_weights != nullptr)
                fetch<V>(on_weights + step.ahead);
        }
        Vec w[V], on_w[V] = {};
        each<V>(EACH(v) { w[v] = lanes.get(weights, v); });
        const auto row = EACH(r) {
            Vec xr[V], a[V] = {};
            each<V>(EACH(v) { xr[v] = lanes.get(x + r * step.channels, v); });
            each<D3>(EACH(i) {
                if constexpr (L1 == DENSE || fills(L1, L2, L3, r, i)) {
                    const Real factor = m[(r * D3 + i) * EDGE_BLOCK];
                    each<V>(EACH(v) { a[v] += factor * g[i][v]; });
                }
            });
            each<V>(EACH(v) { on_w[v] += a[v] * xr[v]; });
            if (on_x != nullptr)
                each<V>(EACH(v) {
                    lanes.put(on_x + r * step.channels, v, lanes.get(on_x + r * step.channels, v) + w[v] * a[v]);
                });
            if (on_m != nullptr) {
                each<V>(EACH(v) { xr[v] *= w[v]; });
                each<D3>(EACH(i) {
                    if constexpr (L1 == DENSE || fills(L1, L2, L3, r, i)) {
                        Real *entry = on_m + (r * D3 + i) * Simd<Real>::lanes;
                        Vec s = load(entry);
                        each<V>(EACH(v) { s += xr[v] * g[i][v]; });
                        store(entry, s);
                    }
                });
            }
        };
        if constexpr (L1 == DENSE) {
            for (int r = 0; r < step.rows; ++r) {
                row(std::integral_constant<int, 0>{});
                x += step.channels;
                m += D3 * EDGE_BLOCK;
                on_x = on_x == nullptr ? nullptr : on_x + step.channels;
                on_m = on_m == nullptr ? nullptr : on_m + D3 * Simd<Real>::lanes;
            }
        } else {
            each<D1>(row);
        }
        if (on_weights != nullptr)
            each<V>(EACH(v) { lanes.put(on_weights, v, on_w[v]); });
    }
}

template <class Real, int L1, int L2, int L3> void backward(const BackwardStep<Real> &step) {
    over_channels<Real, vectors_together(2 * L3 + 6, 0)>(
        step.channels,
        CHANNELS(width, channel, part) { backward_channels<Real, L1, L2, L3, width>(step, channel, part); });
}

template <class Real>
void couple(const Term<Real> *terms, int64_t count, const Real *y, Real *matrix, int64_t entries) {
    constexpr int V = EDGE_BLOCK / Simd<Real>::lanes;
    std::memset(matrix, 0, size_t(entries) * EDGE_BLOCK * sizeof(Real));
    for (const Term<Real> *term = terms; term != terms + count; ++term)
        each<V>(EACH(i) {
            Real *entry = matrix + term->entry * EDGE_BLOCK + i * Simd<Real>::lanes;
            const Real *harmonic = y + term->harmonic * EDGE_BLOCK + i * Simd<Real>::lanes;
            store(entry, load(entry) + term->value * load(harmonic));
        });
}

template <class Real> void uncouple(const Term<Real> *terms, int64_t count, const Real *grad_matrix, Real *sums) {
    for (const Term<Real> *term = terms, *end = terms + count; term != end;) {
        Real *const sum = sums + term->harmonic * Simd<Real>::lanes;
        Vector<Real> total = load(sum);
        for (const int32_t harmonic = term->harmonic; term != end && term->harmonic == harmonic; ++term)
            total += term->value * load(grad_matrix + term->entry * Simd<Real>::lanes);
        store(sum, total);
    }
}

template <class Real> void add_lanes(const Real *vectors, int64_t count, Real *out) {
    for (int64_t k = 0; k < count; ++k)
        out[k] = sum<Real>(load(vectors + k * Simd<Real>::lanes));
}

template <class Real> void spline(const SplineRow<Real> &at, int64_t begin, int64_t count, Real *weights) {
    const Real *a = at.row + begin, *b = a + at.stride, *c = b + at.stride, *d = c + at.stride;
    int64_t k = 0;
    for (; k + Simd<Real>::lanes <= count; k += Simd<Real>::lanes)
        store(weights + k, (at.basis[0] * load(a + k) + at.basis[1] * load(b + k)) +
                               (at.basis[2] * load(c + k) + at.basis[3] * load(d + k)));
    for (; k < count; ++k)
        weights[k] = (at.basis[0] * a[k] + at.basis[1] * b[k]) + (at.basis[2] * c[k] + at.basis[3] * d[k]);
}

template <class Real> Real spline_slope(const SplineRow<Real> &at, int64_t count, const Real *grad) {
    const Real *a = at.row, *b = a + at.stride, *c = b + at.stride, *d = c + at.stride;
    Vector<Real> total = {};
    int64_t k = 0;
    for (; k + Simd<Real>::lanes <= count; k += Simd<Real>::lanes)
        total += load(grad + k) * ((at.slope[0] * load(a + k) + at.slope[1] * load(b + k)) +
                                   (at.slope[2] * load(c + k) + at.slope[3] * load(d + k)));
    Real rest = sum<Real>(total);
    for (; k < count; ++k)
        rest += grad[k] * ((at.slope[0] * a[k] + at.slope[1] * b[k]) + (at.slope[2] * c[k] + at.slope[3] * d[k]));
    return rest;
}

template <class Real, int L3> constexpr void fill_dense(Kernels<Real> &kernels) {
    for (int l1 = 0; l1 < DEGREES; ++l1)
        for (int l2 = 0; l2 < DEGREES; ++l2) {
            kernels.forward[l1][l2][L3] = forward<Real, DENSE, DENSE, L3>;
            kernels.backward[l1][l2][L3] = backward<Real, DENSE, DENSE, L3>;
        }
}

template <class Real, int L1, int L2, int L3> constexpr void fill_sparse(Kernels<Real> &kernels) {
    if constexpr (L3 <= L1 + L2 && L3 >= L1 - L2 && L3 >= L2 - L1) {
        kernels.forward[L1][L2][L3] = forward<Real, L1, L2, L3>;
        kernels.backward[L1][L2][L3] = backward<Real, L1, L2, L3>;
    }
}

template <class Real> constexpr Kernels<Real> make_kernels() {
    Kernels<Real> kernels{};
    kernels.lanes = Simd<Real>::lanes;
    kernels.couple = couple<Real>;
    kernels.uncouple = uncouple<Real>;
    kernels.add_lanes = add_lanes<Real>;
    kernels.spline = spline<Real>;
    kernels.spline_slope = spline_slope<Real>;
    each<DEGREES>([&](auto l3) { fill_dense<Real, l3>(kernels); });
    each<27>([&](auto k) { fill_sparse<Real, k / 9, k / 3 % 3, k % 3>(kernels); });
    return kernels;
}

} // namespace

template <class Real, InstructionSet> const Kernels<Real> &kernels() {
    static constexpr Kernels<Real> all = make_kernels<Real>();
    return all;
}
template const Kernels<float> &kernels<float, InstructionSet::EQUISTRIDE_INSTRUCTION_SET>();
template const Kernels<double> &kernels<double, InstructionSet::EQUISTRIDE_INSTRUCTION_SET>();

} // namespace equistride
