// The kernels for any degree, one path and slot of 32 channels a warp: the harmonics of a few edges are contracted with
// the coefficients into matrices M[m1, m3] in shared memory, which the lanes, as channels, then read. ORDERS is the
// largest 2 l3 + 1.
#pragma once
#include "tensor_product/device.h"
#include "tensor_product/launches.h"

namespace equistride {

namespace {

constexpr int DENSE_EDGES = 8; // in shared memory together
constexpr int MAX_ORDERS = 2 * MAX_DEGREE + 1, FEW_ORDERS = 2 * SPARSE_DEGREE + 1;
constexpr int DENSE_SLOTS = MAX_ORDERS + 1; // of Gradient::parts: harmonics, then the length

template <class Real, int ORDERS, bool TABLE> struct DenseStage {
    Stage<Real, DENSE_EDGES, MAX_ORDERS, TABLE> edges;
    Real matrix[DENSE_EDGES][MAX_ORDERS * ORDERS], on_matrix[MAX_ORDERS * ORDERS];

    __device__ void read(const Problem<Real> &in, const DenseUnits<Real> &units, int64_t begin, int count, int lane) {
        const int harmonics = 2 * units.l2 + 1, entries = (2 * units.l1 + 1) * (2 * units.l3 + 1);
        edges.read(in, begin, count, lane, [&](int slot) { return slot < harmonics ? units.y + slot : -1; });
        for (int k = lane; k < count * entries; k += WARP) {
            const int edge = k / entries, entry = k % entries;
            Real sum = 0;
            for (int t = units.entry_first[entry]; t < units.entry_first[entry + 1]; ++t)
                sum += units.value[t] * edges.y[edge][units.term[t].harmonic];
            matrix[edge][entry] = sum;
        }
        __syncwarp();
    }
};

template <class Real, int ORDERS, bool TABLE>
__global__ void __launch_bounds__(THREADS)
    dense_forward(const __grid_constant__ DenseUnits<Real> units, const __grid_constant__ Problem<Real> in, Real *out,
                  bool add) {
    __shared__ DenseStage<Real, ORDERS, TABLE> stages[WARPS];
    DenseStage<Real, ORDERS, TABLE> &stage = stages[threadIdx.x / WARP];
    const DenseUnit &unit = units.all[blockIdx.y];
    const int d1 = 2 * units.l1 + 1, d3 = 2 * units.l3 + 1;
    const auto [there, wrong, active, lane, channel, owner, begin, end] = turn_of(in, unit);
    if (!there)
        return;
    Real sum[ORDERS] = {};
    for (int64_t e = begin; e < end; e += DENSE_EDGES) {
        const int count = int(end - e < DENSE_EDGES ? end - e : DENSE_EDGES);
        stage.read(in, units, e, count, lane);
        for (int k = 0; k < count; ++k) {
            const Real *x = in.x + stage.edges.other[k] * in.x_width + unit.x + channel;
            const Real w = active ? stage.edges.weight(in, k, unit.weights + channel) : Real(0);
            for (int m1 = 0; m1 < d1; ++m1) {
                const Real z = active ? w * x[m1 * unit.channels] : Real(0);
                each<ORDERS>([&](auto m3) {
                    if (m3 < d3)
                        sum[m3] += stage.matrix[k][m1 * d3 + m3] * z;
                });
            }
        }
    }
    Real *to = out + owner * in.out_width + unit.out + channel;
    each<ORDERS>([&](auto m3) {
        if (active && m3 < d3) {
            Real &place = to[int64_t(m3) * unit.out_stride];
            const Real value = wrong ? not_a_number<Real>() : sum[m3];
            place = add ? place + value : value;
        }
    });
}

// Owners are senders where the gradient of x is wanted, and receivers otherwise.
template <class Real, int ORDERS, bool TABLE>
__global__ void __launch_bounds__(THREADS)
    dense_backward(const __grid_constant__ DenseUnits<Real> units, const __grid_constant__ Problem<Real> in,
                   const __grid_constant__ Gradient<Real> to) {
    __shared__ DenseStage<Real, ORDERS, TABLE> stages[WARPS];
    DenseStage<Real, ORDERS, TABLE> &stage = stages[threadIdx.x / WARP];
    const DenseUnit &unit = units.all[blockIdx.y];
    const int d1 = 2 * units.l1 + 1, d3 = 2 * units.l3 + 1;
    const bool by_sender = in.order != nullptr;
    const auto [there, wrong, active, lane, channel, owner, begin, end] = turn_of(in, unit);
    if (!there)
        return;
    Real on_x[MAX_ORDERS] = {};
    for (int64_t e = begin; e < end; e += DENSE_EDGES) {
        const int count = int(end - e < DENSE_EDGES ? end - e : DENSE_EDGES);
        stage.read(in, units, e, count, lane);
        for (int k = 0; k < count; ++k) {
            const int64_t sender = by_sender ? owner : stage.edges.other[k],
                          receiver = by_sender ? stage.edges.other[k] : owner;
            const Real *x = in.x + sender * in.x_width + unit.x + channel;
            const Real *grad = to.grad + receiver * in.out_width + unit.out + channel;
            const Real w = active ? stage.edges.weight(in, k, unit.weights + channel) : Real(0);
            Real g[ORDERS], on_w = 0;
            each<ORDERS>([&](auto m3) { g[m3] = active && m3 < d3 ? grad[int64_t(m3) * unit.out_stride] : Real(0); });
            each<MAX_ORDERS>([&](auto m1) {
                if (m1 >= d1)
                    return;
                const Real here = active ? x[m1 * unit.channels] : Real(0);
                Real a = 0;
                each<ORDERS>([&](auto m3) {
                    if (m3 < d3)
                        a += stage.matrix[k][m1 * d3 + m3] * g[m3];
                });
                on_w += a * here;
                on_x[m1] += a * w;
                if (to.y) {
                    Real products[16] = {};
                    each<ORDERS>([&](auto m3) { products[m3] = w * here * g[m3]; });
                    const Real total = sum_sixteen(products, lane);
                    if (lane % 2 == 0 && lane / 2 < d3)
                        stage.on_matrix[m1 * d3 + lane / 2] = total;
                }
            });
            if (!TABLE && to.weights != nullptr && active)
                to.weights[stage.edges.edge[k] * in.weights_width + unit.weights + channel] = on_w;
            if (to.parts == nullptr)
                continue;
            Real *parts = to.parts + (int64_t(blockIdx.y) * in.edges + stage.edges.edge[k]) * DENSE_SLOTS;
            __syncwarp();
            if (to.y && lane <= 2 * units.l2) {
                Real sum = 0;
                for (int t = units.harmonic_first[lane]; t < units.harmonic_first[lane + 1]; ++t)
                    sum += units.value[units.by_harmonic[t]] * stage.on_matrix[units.term[units.by_harmonic[t]].entry];
                parts[lane] = sum;
            }
            __syncwarp();
            if constexpr (TABLE)
                if (to.lengths) {
                    const Real slope =
                        sum_lanes(active ? on_w * stage.edges.weight_slope(in, k, unit.weights + channel) : Real(0));
                    if (lane == 0)
                        parts[MAX_ORDERS] = slope;
                }
        }
    }
    if (by_sender)
        each<MAX_ORDERS>([&](auto m1) {
            if (active && m1 < d1) {
                Real &place = to.x[owner * in.x_width + unit.x + int64_t(m1) * unit.channels + channel];
                const Real value = wrong ? not_a_number<Real>() : on_x[m1];
                place = to.add ? place + value : value;
            }
        });
}

} // namespace

} // namespace equistride
