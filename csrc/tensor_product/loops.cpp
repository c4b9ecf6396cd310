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

// Calls body(width, channel, channels left) for V vectors at a time, then two, then one, then what is left (width 0).
template <class Real, int V, class F> INLINE void over_channels(int channels, F &&body) {
    constexpr int lanes = Simd<Real>::lanes;
    int channel = 0;
    for (; channel + V * lanes <= channels; channel += V * lanes)
        body(std::integral_constant<int, V>{}, channel, 0);
    if constexpr (V > 2)
        for (; channel + 2 * lanes <= channels; channel += 2 * lanes)
            body(std::integral_constant<int, 2>{}, channel, 0);
    if constexpr (V > 1)
        for (; channel + lanes <= channels; channel += lanes)
            body(std::integral_constant<int, 1>{}, channel, 0);
    if (channel < channels)
        body(std::integral_constant<int, 0>{}, channel, channels - channel);
}
#define CHANNELS(width, channel, part) [&](auto width, int channel, int part) __attribute__((always_inline))

// The weights of an edge in V vectors of channels.
template <class Real, bool TABLE, int WIDTH, int V>
INLINE void weights_of(const ForwardStep<Real> &step, int e, int channel, const Channels<Real, WIDTH> &lanes,
                       Vector<Real> (&w)[V]) {
    if constexpr (TABLE) {
        const SplineRow<Real> &at = step.splines[e];
        const Real *a = at.row + step.weights_at + channel, *b = a + at.stride, *c = b + at.stride, *d = c + at.stride;
        each<V>(EACH(v) {
            w[v] = (at.basis[0] * lanes.get(a, v) + at.basis[1] * lanes.get(b, v)) +
                   (at.basis[2] * lanes.get(c, v) + at.basis[3] * lanes.get(d, v));
        });
    } else {
        const Real *weights = step.weights[e] + step.weights_at + channel;
        if (step.ahead != 0)
            fetch<V>(weights + step.ahead);
        each<V>(EACH(v) { w[v] = lanes.get(weights, v); });
    }
}

template <class Real, bool TABLE, int L1, int L2, int L3, int WIDTH>
INLINE void forward_channels(const ForwardStep<Real> &step, int channel, int part) {
    constexpr int V = WIDTH > 0 ? WIDTH : 1, D1 = 2 * L1 + 1, D3 = 2 * L3 + 1;
    using Vec = Vector<Real>;
    const Channels<Real, WIDTH> lanes{part};
    Vec out[D3][V] = {};
    if (!step.fresh)
        each<D3>(EACH(i) { each<V>(EACH(v) { out[i][v] = lanes.get(step.out + i * step.out_stride + channel, v); }); });
    for (int e = 0; e < step.edges; ++e) {
        const Real *x = step.x[e] + step.x_at + channel, *m = step.matrix + e;
        Vec w[V];
        weights_of<Real, TABLE, WIDTH, V>(step, e, channel, lanes, w);
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

template <class Real, bool TABLE, int L1, int L2, int L3> void forward(const ForwardStep<Real> &step) {
    over_channels<Real, vectors_together(2 * L3 + 3, 1)>(
        step.channels,
        CHANNELS(width, channel, part) { forward_channels<Real, TABLE, L1, L2, L3, width>(step, channel, part); });
}

template <class Real> struct BackwardRows {
    const Real *x, *weights, *slopes, *turned;
    Real *on_x, *on_weights;
};

// One edge and a vector of channels. With w the weight, x and y what the edge joins, and T the turned gradient:
//     to x: w sum_m2 T y,   to y: w sum_m1 T x,   to w: sum_m1 m2 x T y.
// The weight multiplies on the side with fewer orders.
template <class Real, int L1, int L2, int L3, int WIDTH>
INLINE void backward_channels(const BackwardStep<Real> &step, const BackwardRows<Real> &at, int channel, int part,
                              const Vector<Real> (&y)[2 * L2 + 1], Vector<Real> (&on_y)[2 * L2 + 1],
                              Vector<Real> &on_length) {
    constexpr int D1 = 2 * L1 + 1, D2 = 2 * L2 + 1;
    using Vec = Vector<Real>;
    const Channels<Real, WIDTH> lanes{part};
    const int64_t stride = step.channels;
    const Real *const x = at.x + channel, *const turned = at.turned + channel;
    Real *const on_x = at.on_x == nullptr ? nullptr : at.on_x + channel;
    const Vec w = lanes.get(at.weights + channel, 0);
    Vec on_w = {};
    if constexpr (D1 <= D2) {
        each<D1>(EACH(r) {
            const Vec xr = lanes.get(x + r * stride, 0), scaled = w * xr;
            Vec a = {};
            each<D2>(EACH(m) {
                if constexpr (turns(L1, L2, L3, r - L1, m - L2)) {
                    const Vec t = lanes.get(turned + (r * D2 + m) * stride, 0);
                    a += y[m] * t;
                    on_y[m] += scaled * t;
                }
            });
            on_w += xr * a;
            if (on_x != nullptr)
                lanes.put(on_x + r * stride, 0, step.fresh ? w * a : lanes.get(on_x + r * stride, 0) + w * a);
        });
    } else {
        Vec scaled[D2], b[D2] = {};
        each<D2>(EACH(m) { scaled[m] = w * y[m]; });
        each<D1>(EACH(r) {
            const Vec xr = lanes.get(x + r * stride, 0);
            Vec sum = on_x == nullptr || step.fresh ? Vec{} : lanes.get(on_x + r * stride, 0);
            each<D2>(EACH(m) {
                if constexpr (turns(L1, L2, L3, r - L1, m - L2)) {
                    const Vec t = lanes.get(turned + (r * D2 + m) * stride, 0);
                    sum += scaled[m] * t;
                    b[m] += xr * t;
                }
            });
            if (on_x != nullptr)
                lanes.put(on_x + r * stride, 0, sum);
        });
        each<D2>(EACH(m) {
            on_y[m] += w * b[m];
            on_w += y[m] * b[m];
        });
    }
    if (at.slopes != nullptr)
        on_length += lanes.get(at.slopes + channel, 0) * on_w;
    if (at.on_weights != nullptr)
        lanes.put(at.on_weights + channel, 0, on_w);
}

template <class Real> INLINE BackwardRows<Real> backward_rows(const BackwardStep<Real> &step, int e) {
    return {step.x[e] + step.x_at,
            step.weights[e] + step.weights_at,
            step.slopes == nullptr ? nullptr : step.slopes[e],
            step.turned,
            step.grad_x == nullptr ? nullptr : step.grad_x + int64_t(e) * (2 * step.l1 + 1) * step.channels,
            step.grad_weights == nullptr ? nullptr : step.grad_weights[e] + step.weights_at};
}

// Lines that are about to be written are fetched too: a store that misses holds up all stores behind it.
template <class Real> INLINE void fetch_ahead(const BackwardStep<Real> &step, const BackwardRows<Real> &at) {
    if (step.ahead != 0)
        for (int channel = 0; channel < step.channels; channel += 64 / int(sizeof(Real))) {
            __builtin_prefetch(at.weights + step.ahead + channel, 0, 2);
            if (at.on_weights != nullptr)
                __builtin_prefetch(at.on_weights + step.ahead + channel, 0, 2);
        }
}

template <class Real, int L1, int L2, int L3> void backward(const BackwardStep<Real> &step) {
    constexpr int D2 = 2 * L2 + 1, LANES = Simd<Real>::lanes;
    using Vec = Vector<Real>;
    for (int e = 0; e < step.edges; ++e) {
        const BackwardRows<Real> at = backward_rows(step, e);
        fetch_ahead(step, at);
        Real *const sums = step.sums + e * step.sums_stride, *const to_y = sums + step.sums_at,
                    *const to_length = sums + step.sums_length;
        Vec y[D2], on_y[D2], on_length = load(to_length);
        each<D2>(EACH(m) {
            y[m] = Vec{} + step.y[e][step.y_at + m];
            on_y[m] = load(to_y + m * LANES);
        });
        over_channels<Real, 1>(
            step.channels, CHANNELS(width, channel, part) {
                backward_channels<Real, L1, L2, L3, width>(step, at, channel, part, y, on_y, on_length);
            });
        each<D2>(EACH(m) { store(to_y + m * LANES, on_y[m]); });
        store(to_length, on_length);
    }
}

// The same for degrees that are known at run time only.
template <class Real> void backward_dense(const BackwardStep<Real> &step) {
    constexpr int LANES = Simd<Real>::lanes;
    using Vec = Vector<Real>;
    const int d1 = 2 * step.l1 + 1, d2 = 2 * step.l2 + 1;
    for (int e = 0; e < step.edges; ++e) {
        const BackwardRows<Real> at = backward_rows(step, e);
        const Real *const y = step.y[e] + step.y_at;
        Real *const sums = step.sums + e * step.sums_stride, *const to_y = sums + step.sums_at,
                    *const to_length = sums + step.sums_length;
        over_channels<Real, 1>(
            step.channels, CHANNELS(width, channel, part) {
                const Channels<Real, width> lanes{part};
                const Vec w = lanes.get(at.weights + channel, 0);
                Vec on_w = {};
                for (int r = 0; r < d1; ++r) {
                    const int64_t row = int64_t(r) * step.channels + channel;
                    const Vec xr = lanes.get(at.x + row, 0), scaled = w * xr;
                    Vec a = {};
                    for (int m = 0; m < d2; ++m) {
                        const Vec t = lanes.get(at.turned + (r * d2 + m) * step.channels + channel, 0);
                        a += y[m] * t;
                        store(to_y + m * LANES, load(to_y + m * LANES) + scaled * t);
                    }
                    on_w += xr * a;
                    if (at.on_x != nullptr)
                        lanes.put(at.on_x + row, 0, step.fresh ? w * a : lanes.get(at.on_x + row, 0) + w * a);
                }
                if (at.slopes != nullptr)
                    store(to_length, load(to_length) + lanes.get(at.slopes + channel, 0) * on_w);
                if (at.on_weights != nullptr)
                    lanes.put(at.on_weights + channel, 0, on_w);
            });
    }
}

template <class Real>
void turn(const TurnTerm<Real> *terms, int64_t count, const Real *grad, int64_t stride, int channels, Real *turned) {
    for (const TurnTerm<Real> *term = terms; term != terms + count; ++term) {
        const Real *const a = grad + term->m3[0] * stride, *const b = grad + term->m3[1] * stride;
        const Real value = term->value[0], other = term->value[1];
        Real *const to = turned + int64_t(term->entry) * channels;
        over_channels<Real, 1>(
            channels, CHANNELS(width, channel, part) {
                const Channels<Real, width> lanes{part};
                Vector<Real> sum = value * lanes.get(a + channel, 0);
                if (other != 0)
                    sum += other * lanes.get(b + channel, 0);
                lanes.put(to + channel, 0, sum);
            });
    }
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

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define EQUISTRIDE_SHUFFLES
// Of blocks of 2 HALF lanes in a and b, the sums of their halves: first a's blocks, then b's.
template <class Real, int HALF, int... K>
INLINE Vector<Real> fold(Vector<Real> a, Vector<Real> b, std::integer_sequence<int, K...>) {
    constexpr auto from = [](int k, int half) {
        constexpr int lanes = Simd<Real>::lanes, blocks = lanes / (2 * HALF);
        const int block = k / HALF;
        return block / blocks * lanes + block % blocks * 2 * HALF + half * HALF + k % HALF;
    };
    return __builtin_shufflevector(a, b, from(K, 0)...) + __builtin_shufflevector(a, b, from(K, 1)...);
}

// Of lanes / HALF vectors, blocks of HALF lanes that are left to add; HALF 1: lane k is the sum of vector k.
template <class Real, int HALF> INLINE Vector<Real> fold_all(const Real *vectors) {
    constexpr int lanes = Simd<Real>::lanes;
    constexpr std::make_integer_sequence<int, lanes> all{};
    if constexpr (HALF == lanes / 2)
        return fold<Real, HALF>(load(vectors), load(vectors + lanes), all);
    else
        return fold<Real, HALF>(fold_all<Real, 2 * HALF>(vectors),
                                fold_all<Real, 2 * HALF>(vectors + lanes / (2 * HALF) * lanes), all);
}
#endif
#endif

template <class Real> void add_lanes(const Real *vectors, int64_t count, Real *out) {
    constexpr int lanes = Simd<Real>::lanes;
    int64_t k = 0;
#if defined(EQUISTRIDE_SHUFFLES)
    for (; k + lanes <= count; k += lanes)
        store(out + k, fold_all<Real, 1>(vectors + k * lanes));
#endif
    for (; k < count; ++k)
        out[k] = sum<Real>(load(vectors + k * lanes));
}

template <class Real> void add(const Real *from, int64_t count, Real *to) {
    over_channels<Real, 1>(
        int(count), CHANNELS(width, k, part) {
            const Channels<Real, width> lanes{part};
            lanes.put(to + k, 0, lanes.get(to + k, 0) + lanes.get(from + k, 0));
        });
}

template <class Real>
void spline_slope(const SplineRow<Real> &at, int64_t begin, int64_t count, Real *weights, Real *slopes) {
    const Real *a = at.row + begin, *b = a + at.stride, *c = b + at.stride, *d = c + at.stride;
    over_channels<Real, 1>(
        int(count), CHANNELS(width, k, part) {
            const Channels<Real, width> lanes{part};
            const Vector<Real> ak = lanes.get(a + k, 0), bk = lanes.get(b + k, 0), ck = lanes.get(c + k, 0),
                               dk = lanes.get(d + k, 0);
            lanes.put(weights + k, 0, (at.basis[0] * ak + at.basis[1] * bk) + (at.basis[2] * ck + at.basis[3] * dk));
            lanes.put(slopes + k, 0, at.slope[0] * (bk - ak) + at.slope[1] * (ck - bk) + at.slope[2] * (dk - ck));
        });
}

template <class Real>
void add_to_spline(const Real *from, const SplineRow<Real> &at, int64_t begin, int64_t count, Real *row) {
    over_channels<Real, 1>(
        int(count), CHANNELS(width, k, part) {
            const Channels<Real, width> lanes{part};
            const Vector<Real> value = lanes.get(from + k, 0);
            Real *to = row + begin + k;
            for (int j = 0; j < 4; ++j, to += at.stride)
                lanes.put(to, 0, lanes.get(to, 0) + at.basis[j] * value);
        });
}

template <class Real, int L3> constexpr void fill_dense(Kernels<Real> &kernels) {
    for (int l1 = 0; l1 < DEGREES; ++l1)
        for (int l2 = 0; l2 < DEGREES; ++l2) {
            kernels.forward[l1][l2][L3] = forward<Real, false, DENSE, DENSE, L3>;
            kernels.forward_table[l1][l2][L3] = forward<Real, true, DENSE, DENSE, L3>;
            kernels.backward[l1][l2][L3] = backward_dense<Real>;
        }
}

template <class Real, int L1, int L2, int L3> constexpr void fill_sparse(Kernels<Real> &kernels) {
    if constexpr (L3 <= L1 + L2 && L3 >= L1 - L2 && L3 >= L2 - L1) {
        if constexpr (L1 < 3 && L2 < 3 && L3 < 3) {
            kernels.forward[L1][L2][L3] = forward<Real, false, L1, L2, L3>;
            kernels.forward_table[L1][L2][L3] = forward<Real, true, L1, L2, L3>;
        }
        kernels.backward[L1][L2][L3] = backward<Real, L1, L2, L3>;
    }
}

template <class Real> constexpr Kernels<Real> make_kernels() {
    Kernels<Real> kernels{};
    kernels.lanes = Simd<Real>::lanes;
    kernels.couple = couple<Real>;
    kernels.turn = turn<Real>;
    kernels.add_lanes = add_lanes<Real>;
    kernels.add = add<Real>;
    kernels.spline_slope = spline_slope<Real>;
    kernels.add_to_spline = add_to_spline<Real>;
    each<DEGREES>([&](auto l3) { fill_dense<Real, l3>(kernels); });
    each<64>([&](auto k) { fill_sparse<Real, k / 16, k / 4 % 4, k % 4>(kernels); });
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
