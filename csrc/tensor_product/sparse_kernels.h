// The kernels for degrees up to 2: the coefficients are immediate numbers, and whatever is indexed by m lives in
// registers. A warp takes one unit (a slot of channels of a block of x, with all its paths) of one owner, lanes are
// channels.
#pragma once
#include "tensor_product/device.h"
#include "tensor_product/launches.h"

namespace equistride {

namespace {

constexpr int SPARSE_HARMONICS = (SPARSE_DEGREE + 1) * (SPARSE_DEGREE + 1);
constexpr int SPARSE_SLOTS = SPARSE_HARMONICS + 1; // of Gradient::parts: harmonics, then the length

template <class Real, bool TABLE> using SparseStage = Stage<Real, WARP, SPARSE_HARMONICS, TABLE>;

template <class Real> __device__ int harmonic_column(const SparseUnit<Real> &unit, int slot) {
    const int l = slot == 0 ? 0 : slot < 4 ? 1 : 2;
    return unit.y[l] < 0 ? -1 : unit.y[l] + slot - l * l;
}

// M[m1, m3] of the pair: the symbols contracted with the harmonics y, all degrees one after the other.
template <class Real, int L1, int L2, int L3, int ROW, int COLUMN>
__device__ __forceinline__ Real contract(const Real *y) {
    Real sum = 0;
    each<2 * L2 + 1>([&](auto k) {
        constexpr double value = SYMBOL<L1, L2, L3, ROW - L1, k - L2, COLUMN - L3>;
        if constexpr (value != 0)
            sum += Real(value) * y[L2 * L2 + k];
    });
    return sum;
}

// V slots of 32 channels a unit.
template <class Real, int L1, int V, bool TABLE>
__global__ void __launch_bounds__(THREADS)
    sparse_forward(const __grid_constant__ SparseUnits<Real> units, const __grid_constant__ Problem<Real> in, Real *out,
                   bool add) {
    constexpr int D1 = 2 * L1 + 1, PAIRS = count_pairs(L1), COLUMNS = columns_before(L1, PAIRS);
    __shared__ SparseStage<Real, TABLE> stages[WARPS];
    SparseStage<Real, TABLE> &stage = stages[threadIdx.x / WARP];
    const SparseUnit<Real> &unit = units.all[blockIdx.y];
    const auto [there, wrong, active, lane, channel, owner, begin, end] = turn_of(in, unit);
    if (!there)
        return;
    Real sum[COLUMNS][V] = {};
    for (int64_t e = begin; e < end; e += WARP) {
        const int count = int(end - e < WARP ? end - e : WARP);
        stage.read(in, e, count, lane, [&](int slot) { return harmonic_column(unit, slot); });
        for (int k = 0; k < count; ++k) {
            const Real *from = in.x + stage.other[k] * in.x_width + unit.x + channel;
            // All loads of an edge come first, so that their latencies overlap.
            Real x[D1][V], w[PAIRS][V], y[SPARSE_HARMONICS];
            each<D1>([&](auto m1) {
                each<V>([&](auto v) {
                    x[m1][v] = channel + v * WARP < unit.channels ? from[m1 * unit.channels + v * WARP] : Real(0);
                });
            });
            each<PAIRS>([&](auto pair) {
                each<V>([&](auto v) {
                    w[pair][v] = (unit.present >> pair & 1) && channel + v * WARP < unit.channels
                                     ? stage.weight(in, k, unit.paths[pair].weights + channel + v * WARP)
                                     : Real(0);
                });
            });
            each<SPARSE_HARMONICS>([&](auto h) { y[h] = stage.y[k][h]; });
            each<PAIRS>([&](auto pair) {
                constexpr int L2 = pair_of(L1, pair).l2, L3 = pair_of(L1, pair).l3, AT = columns_before(L1, pair);
                if (!(unit.present >> pair & 1))
                    return;
                each<D1>([&](auto m1) {
                    Real z[V];
                    each<V>([&](auto v) { z[v] = w[pair][v] * x[m1][v]; });
                    each<2 * L3 + 1>([&](auto m3) {
                        if constexpr (FILLS<L1, L2, L3, m1 - L1, m3 - L3>) {
                            const Real m = contract<Real, L1, L2, L3, m1, m3>(y);
                            each<V>([&](auto v) { sum[AT + m3][v] += m * z[v]; });
                        }
                    });
                });
            });
        }
    }
    each<PAIRS>([&](auto pair) {
        constexpr int L3 = pair_of(L1, pair).l3, AT = columns_before(L1, pair);
        if (!(unit.present >> pair & 1))
            return;
        const SparsePath<Real> &path = unit.paths[pair];
        Real *to = out + owner * in.out_width + path.out + channel;
        each<2 * L3 + 1>([&](auto m3) {
            each<V>([&](auto v) {
                if (channel + v * WARP < unit.channels) {
                    Real &place = to[int64_t(m3) * path.out_stride + v * WARP];
                    const Real value = wrong ? not_a_number<Real>() : path.scale * sum[AT + m3][v];
                    place = add ? place + value : value;
                }
            });
        });
    });
}

// Owners are senders where the gradient of x is wanted (BY_SENDER), then x and its gradient stay in registers, and
// receivers otherwise, then the gradient of the output does.
template <class Real, int L1, bool TABLE, bool BY_SENDER>
__global__ void __launch_bounds__(THREADS)
    sparse_backward(const __grid_constant__ SparseUnits<Real> units, const __grid_constant__ Problem<Real> in,
                    const __grid_constant__ Gradient<Real> to) {
    constexpr int D1 = 2 * L1 + 1, PAIRS = count_pairs(L1), COLUMNS = columns_before(L1, PAIRS);
    __shared__ SparseStage<Real, TABLE> stages[WARPS];
    SparseStage<Real, TABLE> &stage = stages[threadIdx.x / WARP];
    const SparseUnit<Real> &unit = units.all[blockIdx.y];
    const auto [there, wrong, active, lane, channel, owner, begin, end] = turn_of(in, unit);
    if (!there)
        return;
    const auto read_x = [&](int64_t sender, Real *x) {
        const Real *from = in.x + sender * in.x_width + unit.x + channel;
        each<D1>([&](auto m1) { x[m1] = active ? from[m1 * unit.channels] : Real(0); });
    };
    const auto read_grad = [&](int64_t receiver, Real *g) {
        each<PAIRS>([&](auto pair) {
            const SparsePath<Real> &path = unit.paths[pair];
            const Real *from = to.grad + receiver * in.out_width + path.out + channel;
            each<2 * pair_of(L1, pair).l3 + 1>([&](auto m3) {
                g[columns_before(L1, pair) + m3] =
                    (unit.present >> pair & 1) && active ? path.scale * from[int64_t(m3) * path.out_stride] : Real(0);
            });
        });
    };
    Real x[D1] = {}, on_x[D1] = {}, g[COLUMNS] = {};
    if constexpr (BY_SENDER)
        read_x(owner, x);
    else
        read_grad(owner, g);
    for (int64_t e = begin; e < end; e += WARP) {
        const int count = int(end - e < WARP ? end - e : WARP);
        stage.read(in, e, count, lane, [&](int slot) { return harmonic_column(unit, slot); });
        for (int k = 0; k < count; ++k) {
            Real y[SPARSE_HARMONICS], w[PAIRS], parts[16] = {};
            if constexpr (BY_SENDER)
                read_grad(stage.other[k], g);
            else
                read_x(stage.other[k], x);
            each<PAIRS>([&](auto pair) {
                w[pair] = (unit.present >> pair & 1) && active ? stage.weight(in, k, unit.paths[pair].weights + channel)
                                                               : Real(0);
            });
            each<SPARSE_HARMONICS>([&](auto h) { y[h] = stage.y[k][h]; });
            each<PAIRS>([&](auto pair) {
                constexpr int L2 = pair_of(L1, pair).l2, L3 = pair_of(L1, pair).l3, AT = columns_before(L1, pair);
                if (!(unit.present >> pair & 1))
                    return;
                const SparsePath<Real> &path = unit.paths[pair];
                Real on_w = 0;
                each<D1>([&](auto m1) {
                    Real a = 0;
                    const Real z = w[pair] * x[m1];
                    each<2 * L3 + 1>([&](auto m3) {
                        if constexpr (FILLS<L1, L2, L3, m1 - L1, m3 - L3>)
                            a += contract<Real, L1, L2, L3, m1, m3>(y) * g[AT + m3];
                    });
                    on_w += a * x[m1];
                    on_x[m1] += a * w[pair];
                    if (to.y)
                        each<2 * L3 + 1>([&](auto m3) {
                            const Real p = z * g[AT + m3];
                            each<2 * L2 + 1>([&](auto m2) {
                                constexpr double value = SYMBOL<L1, L2, L3, m1 - L1, m2 - L2, m3 - L3>;
                                if constexpr (value != 0)
                                    parts[L2 * L2 + m2] += Real(value) * p;
                            });
                        });
                });
                if constexpr (TABLE) {
                    if (to.lengths && active)
                        parts[SPARSE_HARMONICS] += on_w * stage.weight_slope(in, k, path.weights + channel);
                } else {
                    if (to.weights != nullptr && active)
                        to.weights[stage.edge[k] * in.weights_width + path.weights + channel] = on_w;
                }
            });
            if (to.parts != nullptr) {
                const Real total = sum_sixteen(parts, lane);
                if (lane % 2 == 0 && lane / 2 < SPARSE_SLOTS)
                    to.parts[(int64_t(blockIdx.y) * in.edges + stage.edge[k]) * SPARSE_SLOTS + lane / 2] = total;
            }
        }
    }
    if constexpr (BY_SENDER)
        each<D1>([&](auto m1) {
            if (active) {
                Real &place = to.x[owner * in.x_width + unit.x + int64_t(m1) * unit.channels + channel];
                const Real value = wrong ? not_a_number<Real>() : on_x[m1];
                place = to.add ? place + value : value;
            }
        });
}

} // namespace

} // namespace equistride
