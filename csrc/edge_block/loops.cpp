// The loops themselves, compiled once for each instruction set; see simd.h.
#include "edge_block/kernels.h"
#include "vectors.h"

namespace equistride {

namespace {

// Matrix products: tiles of TILE_ROWS rows and two vectors, held in registers.

constexpr int TILE_ROWS = EQUISTRIDE_VECTOR_BYTES == 64 ? 12 : 6;
template <class Real> constexpr int TILE_COLUMNS = 2 * Simd<Real>::lanes;

template <class Real, int ROWS>
void tile(const Multiply<Real> &m, const Real *a, const Real *b, const Real *bias, Real *c, int64_t ldc, Real *also) {
    constexpr int lanes = Simd<Real>::lanes;
    Vector<Real> sum[ROWS][2];
    if (m.add)
        each<ROWS>(EACH(i) { each<2>(EACH(v) { sum[i][v] = load(c + i * ldc + v * lanes); }); });
    else if (bias != nullptr)
        each<ROWS>(EACH(i) { each<2>(EACH(v) { sum[i][v] = load(bias + v * lanes); }); });
    else
        each<ROWS>(EACH(i) { each<2>(EACH(v) { sum[i][v] = Vector<Real>{}; }); });
    for (int64_t p = 0; p < m.k; ++p, b += PANEL) {
        const Vector<Real> left = load(b), right = load(b + lanes);
        each<ROWS>(EACH(i) {
            const Real factor = a[i * m.lda + p];
            sum[i][0] += factor * left;
            sum[i][1] += factor * right;
        });
    }
    each<ROWS>(EACH(i) { each<2>(EACH(v) { store(c + i * ldc + v * lanes, sum[i][v]); }); });
    if (also != nullptr)
        each<ROWS>(EACH(i) { each<2>(EACH(v) { store(also + i * ldc + v * lanes, sum[i][v]); }); });
}

template <class Real>
void tile_rows(const Multiply<Real> &m, int rows, const Real *a, const Real *b, const Real *bias, Real *c, int64_t ldc,
               Real *also) {
    each<TILE_ROWS>(EACH(i) {
        if (rows == i + 1)
            tile<Real, i + 1>(m, a, b, bias, c, ldc, also);
    });
}

template <class Real> INLINE void copy(const Real *from, int64_t count, Real *to) {
    std::memcpy(to, from, size_t(count) * sizeof(Real));
}

template <class Real> void multiply(const Multiply<Real> &m) {
    constexpr int64_t width = TILE_COLUMNS<Real>;
    for (int64_t column = 0; column < m.n; column += width) {
        const Real *b = m.b + column / PANEL * PANEL * m.k + column % PANEL;
        const Real *bias = m.bias == nullptr ? nullptr : m.bias + column;
        const int64_t columns = m.n - column < width ? m.n - column : width;
        for (int64_t row = 0; row < m.rows; row += TILE_ROWS) {
            const int rows = m.rows - row < TILE_ROWS ? int(m.rows - row) : TILE_ROWS;
            const Real *a = m.a + row * m.lda;
            Real *c = m.c + row * m.ldc + column, *also = m.also == nullptr ? nullptr : m.also + (c - m.c);
            if (columns == width) {
                tile_rows(m, rows, a, b, bias, c, m.ldc, also);
                continue;
            }
            Real edge[TILE_ROWS * width] = {}, start[width] = {};
            if (bias != nullptr)
                copy(bias, columns, start);
            for (int i = 0; i < rows && m.add; ++i)
                copy(c + i * m.ldc, columns, edge + i * width);
            tile_rows<Real>(m, rows, a, b, bias == nullptr ? nullptr : start, edge, width, nullptr);
            for (int i = 0; i < rows; ++i) {
                copy(edge + i * width, columns, c + i * m.ldc);
                if (also != nullptr)
                    copy(edge + i * width, columns, also + i * m.ldc);
            }
        }
    }
}

// Degrees, one by one.

template <class F> INLINE void over_degrees(const Shape &shape, F &&body) {
    each<MAX_L + 1>(EACH(l) {
        if (l <= shape.l_max)
            body(l);
    });
}

template <class Real> void add(const Real *a, const Real *b, int64_t count, Real *out) {
    over_vectors<Real>(count, VECTORS(c, lanes) { lanes.put(out + c, 0, lanes.get(a + c, 0) + lanes.get(b + c, 0)); });
}

// Gates are kept open or shut: their sigmoids stay where they were.
template <class Real> void gate(const Shape &shape, Real *inner, Real *out) {
    const int64_t h = shape.hidden;
    const Real *rows = inner + shape.gates;
    over_vectors<Real>(
        h, VECTORS(c, lanes) {
            const Vector<Real> scalar = lanes.get(rows + c, 0);
            lanes.put(out + c, 0, scalar * sigmoid<Real>(scalar));
            for (int l = 1; l <= shape.l_max; ++l) {
                const Vector<Real> open = sigmoid<Real>(lanes.get(inner + (l - 1) * h + c, 0));
                lanes.put(inner + (l - 1) * h + c, 0, open);
                for (int k = 0; k <= 2 * l; ++k)
                    if (const int64_t at = shape.row[l][k] * h + c; at >= 0)
                        lanes.put(out + at, 0, open * lanes.get(rows + at, 0));
            }
        });
}

template <class Real> void ungate(const Shape &shape, const Real *inner, const Real *grad, Real *on_inner) {
    const int64_t h = shape.hidden;
    const Real *rows = inner + shape.gates;
    Real *on_rows = on_inner + shape.gates;
    over_vectors<Real>(
        h, VECTORS(c, lanes) {
            const Vector<Real> scalar = lanes.get(rows + c, 0), slope = sigmoid<Real>(scalar);
            lanes.put(on_rows + c, 0, lanes.get(grad + c, 0) * slope * (1 + scalar * (1 - slope)));
            for (int l = 1; l <= shape.l_max; ++l) {
                const Vector<Real> open = lanes.get(inner + (l - 1) * h + c, 0);
                Vector<Real> on_gate = {};
                for (int k = 0; k <= 2 * l; ++k)
                    if (const int64_t at = shape.row[l][k] * h + c; at >= 0) {
                        const Vector<Real> g = lanes.get(grad + at, 0);
                        on_gate += g * lanes.get(rows + at, 0);
                        lanes.put(on_rows + at, 0, g * open);
                    }
                lanes.put(on_inner + (l - 1) * h + c, 0, on_gate * open * (1 - open));
            }
        });
}

// Rotations. D^0 = 1 is not stored.

template <int L, class Real> INLINE Vector<Real> entry_row(const Real *d, int m, const Vector<Real> *x) {
    if constexpr (L == 0) {
        return x[0];
    } else {
        Vector<Real> sum = d[m * (2 * L + 1)] * x[0];
        each<2 * L>(EACH(k) { sum += d[m * (2 * L + 1) + k + 1] * x[k + 1]; });
        return sum;
    }
}

// y += D^T[:, m] a
template <int L, class Real> INLINE void add_column(const Real *d, int m, Vector<Real> a, Vector<Real> *y) {
    if constexpr (L == 0)
        y[0] += a;
    else
        each<2 * L + 1>(EACH(k) { y[k] += d[m * (2 * L + 1) + k] * a; });
}

template <int L, class Real>
INLINE void add_torque(const Generator<Real> *generators, const Vector<Real> *on_x, const Vector<Real> *x,
                       Vector<Real> *torque) {
    each<3>(EACH(axis) {
        constexpr GeneratorEntries entries = generator_entries(L, axis);
        each<entries.count>(EACH(k) {
            constexpr int row = entries.row[k], column = entries.column[k];
            torque[axis] += generators[axis].value[k] * (on_x[row] * x[column] - on_x[column] * x[row]);
        });
    });
}

template <class Real> void rotate(const Shape &shape, const EdgeIn<Real> &in, Real *out) {
    const int64_t channels = shape.channels;
    for (int half = 0; half < 2; ++half) {
        const Real *x = half == 0 ? in.sender : in.receiver;
        over_vectors<Real>(
            channels, VECTORS(c, lanes) {
                const int64_t at = half * channels + c;
                over_degrees(
                    shape, EACH(l) {
                        Vector<Real> v[2 * l + 1];
                        each<2 * l + 1>(EACH(k) { v[k] = lanes.get(x + (l * l + k) * channels + c, 0); });
                        each<2 * l + 1>(EACH(k) {
                            constexpr int order = k < l ? l - k : k - l;
                            if (order <= shape.m_max) {
                                const int64_t weight = (shape.first_weight[order] + l - order) * 2 * channels + at;
                                lanes.put(out + shape.row[l][k] * 2 * channels + at, 0,
                                          lanes.get(in.weights + weight, 0) *
                                              entry_row<l, Real>(in.frame + shape.frame[l], k, v));
                            }
                        });
                    });
            });
    }
}

template <class Real>
void unrotate(const Shape &shape, const Generators<Real> &generators, const EdgeIn<Real> &in, const Real *grad,
              const EdgeGradient<Real> &to) {
    const int64_t channels = shape.channels;
    Vector<Real> torque[3] = {};
    for (int half = 0; half < 2; ++half) {
        const Real *x = half == 0 ? in.sender : in.receiver;
        over_vectors<Real>(
            channels, VECTORS(c, lanes) {
                const int64_t at = half * channels + c;
                over_degrees(
                    shape, EACH(l) {
                        const Real *d = in.frame + shape.frame[l];
                        Vector<Real> v[2 * l + 1], on_v[2 * l + 1] = {}, on_weight[l + 1] = {};
                        each<2 * l + 1>(EACH(k) { v[k] = lanes.get(x + (l * l + k) * channels + c, 0); });
                        each<2 * l + 1>(EACH(k) {
                            constexpr int order = k < l ? l - k : k - l;
                            if (order <= shape.m_max) {
                                const int64_t weight = (shape.first_weight[order] + l - order) * 2 * channels + at;
                                const Vector<Real> g = lanes.get(grad + shape.row[l][k] * 2 * channels + at, 0);
                                on_weight[order] += g * entry_row<l, Real>(d, k, v);
                                add_column<l, Real>(d, k, g * lanes.get(in.weights + weight, 0), on_v);
                            }
                        });
                        each<l + 1>(EACH(order) {
                            if (order <= shape.m_max)
                                lanes.put(to.weights + (shape.first_weight[order] + l - order) * 2 * channels + at, 0,
                                          on_weight[order]);
                        });
                        each<2 * l + 1>(EACH(k) {
                            const int64_t place = (l * l + k) * channels + c;
                            Real *atom = (half == 0 ? to.sender : to.receiver) + place;
                            lanes.put(atom, 0, half == 1 || to.add_sender ? lanes.get(atom, 0) + on_v[k] : on_v[k]);
                        });
                        add_torque<l, Real>(generators.of[l], on_v, v, torque);
                    });
            });
    }
    for (int axis = 0; axis < 3; ++axis)
        to.torque[axis] += sum<Real>(torque[axis]);
}

template <class Real> void rotate_back(const Shape &shape, const Real *frame, Real factor, const Real *z, Real *out) {
    const int64_t channels = shape.channels;
    over_vectors<Real>(
        channels, VECTORS(c, lanes) {
            over_degrees(
                shape, EACH(l) {
                    Vector<Real> y[2 * l + 1];
                    each<2 * l + 1>(EACH(k) { y[k] = lanes.get(out + (l * l + k) * channels + c, 0); });
                    each<2 * l + 1>(EACH(k) {
                        if (const int row = shape.row[l][k]; row >= 0)
                            add_column<l, Real>(frame + shape.frame[l], k,
                                                factor * lanes.get(z + row * channels + c, 0), y);
                    });
                    each<2 * l + 1>(EACH(k) { lanes.put(out + (l * l + k) * channels + c, 0, y[k]); });
                });
        });
}

template <class Real>
Real unrotate_back(const Shape &shape, const Generators<Real> &generators, const Real *frame, Real factor,
                   const Real *grad, const Real *z, Real *on_z, Real *torque) {
    const int64_t channels = shape.channels;
    Vector<Real> on_factor = {}, turn[3] = {};
    over_vectors<Real>(
        channels, VECTORS(c, lanes) {
            over_degrees(
                shape, EACH(l) {
                    const Real *d = frame + shape.frame[l];
                    Vector<Real> g[2 * l + 1], message[2 * l + 1] = {};
                    each<2 * l + 1>(EACH(k) { g[k] = lanes.get(grad + (l * l + k) * channels + c, 0); });
                    each<2 * l + 1>(EACH(k) {
                        if (const int row = shape.row[l][k]; row >= 0) {
                            const Vector<Real> turned = entry_row<l, Real>(d, k, g),
                                               value = lanes.get(z + row * channels + c, 0);
                            on_factor += turned * value;
                            lanes.put(on_z + row * channels + c, 0, factor * turned);
                            add_column<l, Real>(d, k, value, message);
                        }
                    });
                    add_torque<l, Real>(generators.of[l], message, g, turn);
                });
        });
    for (int axis = 0; axis < 3; ++axis)
        torque[axis] += factor * sum<Real>(turn[axis]);
    return sum<Real>(on_factor);
}

// Splines.

template <class Real> void polynomial(const Polynomial<Real> &at, Real t, Real *out) {
    over_vectors<Real>(
        at.columns, VECTORS(c, lanes) {
            const Real *row = at.rows + (at.terms - 1) * at.columns + c;
            Vector<Real> total = lanes.get(row, 0);
            for (int64_t k = at.terms - 1; k > 0; --k)
                total = total * t + lanes.get(row -= at.columns, 0);
            lanes.put(out + c, 0, total);
        });
}

template <class Real> Real slope(const Polynomial<Real> &at, Real t, const Real *grad) {
    Vector<Real> all = {};
    over_vectors<Real>(
        at.columns, VECTORS(c, lanes) {
            const Real *row = at.rows + (at.terms - 1) * at.columns + c;
            Vector<Real> total = Real(at.terms - 1) * lanes.get(row, 0);
            for (int64_t k = at.terms - 2; k > 0; --k)
                total = total * t + Real(k) * lanes.get(row -= at.columns, 0);
            all += lanes.get(grad + c, 0) * total;
        });
    return sum<Real>(all);
}

template <class Real> constexpr EdgeKernels<Real> make_edge_kernels() {
    return {multiply<Real>,      add<Real>,    rotate<Real>,   rotate_back<Real>, gate<Real>,
            unrotate_back<Real>, ungate<Real>, unrotate<Real>, polynomial<Real>,  slope<Real>};
}

} // namespace

template <class Real, InstructionSet> const EdgeKernels<Real> &edge_kernels() {
    static constexpr EdgeKernels<Real> all = make_edge_kernels<Real>();
    return all;
}
template const EdgeKernels<float> &edge_kernels<float, InstructionSet::EQUISTRIDE_INSTRUCTION_SET>();
template const EdgeKernels<double> &edge_kernels<double, InstructionSet::EQUISTRIDE_INSTRUCTION_SET>();

} // namespace equistride
