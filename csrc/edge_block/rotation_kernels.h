// Rotations of features into bond frames and back, on the GPU, and what they give backwards: lanes are channels.
//
// D^l is stored row by row, D^0 = 1 is not. A rotation of everything by a small angle w turns a frame as a bond turned
// by -w does: gradients to directions are torques, and no Wigner matrix is differentiated.
#pragma once
#include "edge_block/rotations.h"
#include "edge_block/tile.h"

namespace equistride {

namespace {

constexpr int MAX_SIZE = (MAX_L + 1) * (MAX_L + 1);
template <int L> __device__ constexpr int order_of(int k) { return k < L ? L - k : k - L; }

// Call f(l) for l = 0 .. l_max, as compile-time constants.
template <class F> __device__ __forceinline__ void each_degree(const Shape &shape, F &&f) {
    each<MAX_L + 1>([&](auto l) {
        if (l <= shape.l_max)
            f(l);
    });
}

template <int L, class Real> __device__ __forceinline__ Real row_times(const Real *d, int m, const Real *x) {
    if constexpr (L == 0) {
        return x[0];
    } else {
        Real sum = 0;
        each<2 * L + 1>([&](auto k) { sum += d[m * (2 * L + 1) + k] * x[k]; });
        return sum;
    }
}

// y += D^T[:, m] a
template <int L, class Real> __device__ __forceinline__ void add_column(const Real *d, int m, Real a, Real *y) {
    if constexpr (L == 0)
        y[0] += a;
    else
        each<2 * L + 1>([&](auto k) { y[k] += d[m * (2 * L + 1) + k] * a; });
}

template <int L, class Real>
__device__ __forceinline__ void add_torque(const Real *on_x, const Real *x, Real (&torque)[3]) {
    each<3>([&](auto axis) {
        each<generator_entries(L, axis).count>([&](auto k) {
            constexpr int row = generator_entries(L, axis).row[k], column = generator_entries(L, axis).column[k];
            constexpr Real value = GENERATORS<Real>.of[L][axis].value[k];
            torque[axis] += value * (on_x[row] * x[column] - on_x[column] * x[row]);
        });
    });
}

// Features [size, stride] of one channel, all loads before the first use.
template <class Real>
__device__ __forceinline__ void load_features(const Shape &shape, const Real *x, int stride, int channel,
                                              Real (&v)[MAX_SIZE]) {
    each_degree(shape,
                [&](auto l) { each<2 * l + 1>([&](auto k) { v[l * l + k] = x[(l * l + k) * stride + channel]; }); });
}

// Column of the radial weight, or of its gradient, of degree l and order m; then the channels of sender and receiver.
__device__ __forceinline__ int weight_column(const Shape &shape, int l, int m) {
    return (shape.first_weight[m] + l - m) * 2 * int(shape.channels);
}

// Whether features of both atoms, [size, 2 channels], fit into wide rows, where the rotated ones take their place; and
// those of the gradient, [size, channels], before z. So it is where no order is left out.
__device__ __forceinline__ bool fetches_features(const Shape &shape) { return shape.rows == shape.size; }
__device__ __forceinline__ bool fetches_grad(const Shape &shape) {
    return shape.rows == shape.size && shape.channels <= shape.hidden;
}
template <class Tile> __device__ __forceinline__ void fetch_features(const Tile &tile) {
    const auto &in = tile.in;
    const int channels = int(in.shape.channels);
    tile.fetch({in.x, in.sender, tile.atom(1), in.shape.size, channels}, {0, in.layout.wide, 2 * channels});
    tile.fetch({in.x, in.receiver, tile.atom(1), in.shape.size, channels}, {channels, in.layout.wide, 2 * channels});
}
template <class Tile> __device__ __forceinline__ void fetch_grad(const Tile &tile) {
    const auto &in = tile.in;
    tile.fetch({in.grad, in.receiver, tile.atom(1), 1, int(tile.atom(1))}, {0, in.layout.wide, 0});
}

// wide = narrow * D [x_sender, x_receiver]; the features are there already where they fit.
template <class Tile> __device__ void rotate(const Tile &tile) {
    const auto &in = tile.in;
    const Shape &shape = in.shape;
    const int channels = int(shape.channels);
    using Real = typename Tile::Real;
    tile.each_edge([&](int e, int lane) {
        const Real *const frame = tile.frame(e), *const weights = tile.narrow(e);
        Real *const out = tile.wide(e);
        for (int c = lane; c < 2 * channels; c += WARP) {
            const bool sends = c < channels;
            Real v[MAX_SIZE];
            if (fetches_features(shape))
                load_features(shape, out, 2 * channels, c, v);
            else
                load_features(shape, in.x + tile.atom((sends ? in.sender : in.receiver)[tile.begin + e]), channels,
                              sends ? c : c - channels, v);
            each_degree(shape, [&](auto l) {
                each<2 * l + 1>([&](auto k) {
                    constexpr int order = order_of<l>(k);
                    if (order <= shape.m_max)
                        out[shape.row[l][k] * 2 * channels + c] = weights[weight_column(shape, l, order) + c] *
                                                                  row_times<l>(frame + shape.frame[l], k, v + l * l);
                });
            });
        }
    });
}

// Backwards: narrow = gradient to the weights, in their place; to the senders; the bonds' gradients.
template <class Tile> __device__ void unrotate(const Tile &tile) {
    const auto &in = tile.in;
    const Shape &shape = in.shape;
    const int channels = int(shape.channels);
    using Real = typename Tile::Real;
    tile.each_edge([&](int e, int lane) {
        const int64_t edge = tile.begin + e;
        const Real *const frame = tile.frame(e), *const grad = tile.wide(e);
        Real *const weights = tile.narrow(e), *const to_sender = in.waiting + tile.atom(edge - in.begin);
        Real torque[3] = {};
        for (int c = lane; c < 2 * channels; c += WARP) {
            const bool sends = c < channels;
            const int64_t atom = (sends ? in.sender : in.receiver)[edge];
            Real v[MAX_SIZE];
            load_features(shape, in.x + tile.atom(atom), channels, sends ? c : c - channels, v);
            each_degree(shape, [&](auto l) {
                const Real *const d = frame + shape.frame[l];
                Real on_v[2 * l + 1] = {}, on_weight[l + 1] = {};
                each<2 * l + 1>([&](auto k) {
                    constexpr int order = order_of<l>(k);
                    if (order <= shape.m_max) {
                        const Real g = grad[shape.row[l][k] * 2 * channels + c];
                        on_weight[order] += g * row_times<l>(d, k, v + l * l);
                        add_column<l>(d, k, g * weights[weight_column(shape, l, order) + c], on_v);
                    }
                });
                each<l + 1>([&](auto order) {
                    if (order <= shape.m_max)
                        weights[weight_column(shape, l, order) + c] = on_weight[order];
                });
                if (sends)
                    each<2 * l + 1>([&](auto k) { to_sender[(l * l + k) * channels + c] = on_v[k]; });
                add_torque<l>(on_v, v + l * l, torque);
            });
        }
        const Real *const vector = in.vectors + 3 * edge;
        const Real square = vector[0] * vector[0] + vector[1] * vector[1] + vector[2] * vector[2];
        Real sum[3];
        each<3>([&](auto axis) { sum[axis] = sum_lanes(torque[axis]) + tile.torque(e)[axis]; });
        if (lane < 3) {
            const int a = (lane + 1) % 3, b = (lane + 2) % 3;
            const Real of_a = lane == 0   ? sum[1]
                              : lane == 1 ? sum[2]
                                          : sum[0],
                       of_b = lane == 0   ? sum[2]
                              : lane == 1 ? sum[0]
                                          : sum[1];
            in.on_vectors[3 * edge + lane] = (vector[a] * of_b - vector[b] * of_a) / square;
        }
    });
}

// By one warp, backwards through factor * D^T z: on_z, which may be z; the torque; returns the gradient to the factor.
template <class Real>
__device__ __forceinline__ Real unrotate_edge(const Shape &shape, const Real *frame, Real factor, const Real *grad,
                                              const Real *z, Real *on_z, Real (&torque)[3]) {
    const int channels = int(shape.channels);
    Real on_factor = 0;
    for (int c = int(threadIdx.x) % WARP; c < channels; c += WARP) {
        Real g[MAX_SIZE];
        load_features(shape, grad, channels, c, g);
        each_degree(shape, [&](auto l) {
            const Real *const d = frame + shape.frame[l];
            Real message[2 * l + 1] = {};
            each<2 * l + 1>([&](auto k) {
                if (order_of<l>(k) <= shape.m_max) {
                    const int at = shape.row[l][k] * channels + c;
                    const Real turned = row_times<l>(d, k, g + l * l), value = z[at];
                    on_factor += turned * value;
                    on_z[at] = factor * turned;
                    add_column<l>(d, k, value, message);
                }
            });
            add_torque<l>(message, g + l * l, torque);
        });
    }
    each<3>([&](auto axis) { torque[axis] = factor * sum_lanes(torque[axis]); });
    return sum_lanes(on_factor);
}

// Backwards through the rotation back: z becomes its gradient; the torque begins; the envelope's gradient. `fetched`:
// the gradient's features lie in wide rows.
template <class Tile> __device__ void unrotate_back(const Tile &tile, bool fetched) {
    const auto &in = tile.in;
    using Real = typename Tile::Real;
    tile.each_edge([&](int e, int lane) {
        const int64_t edge = tile.begin + e;
        const Real *const grad = fetched ? tile.wide(e) : in.grad + tile.atom(in.receiver[edge]);
        Real torque[3] = {};
        const Real on_factor =
            unrotate_edge(in.shape, tile.frame(e), in.envelope[edge], grad, tile.z(e), tile.z(e), torque);
        if (lane == 0) {
            in.on_envelope[edge] = on_factor;
            each<3>([&](auto axis) { tile.torque(e)[axis] = torque[axis]; });
        }
    });
}

// Sum D^T value(e, row, degree, order, channel) over the edges of each receiver, a thread for each degree and channel.
template <class Tile, class Value> __device__ void sum_to_receivers(const Tile &tile, const Value &value) {
    const auto &in = tile.in;
    const Shape &shape = in.shape;
    const int channels = int(shape.channels);
    using Real = typename Tile::Real;
    for (int p = threadIdx.x; p < (shape.l_max + 1) * channels; p += TILE_THREADS) {
        const int degree = p / channels, c = p % channels;
        each<MAX_L + 1>([&](auto l) {
            if (l != degree)
                return;
            Real sum[2 * l + 1] = {};
            for (int e = 0; e < tile.count; ++e) {
                const Real *const d = tile.frame(e) + shape.frame[l];
                each<2 * l + 1>([&](auto k) {
                    constexpr int order = order_of<l>(k);
                    if (order <= shape.m_max)
                        add_column<l>(d, k, value(e, shape.row[l][k], int(l), order, c), sum);
                });
                const int64_t t = in.receiver[tile.begin + e];
                if (e + 1 < tile.count && in.receiver[tile.begin + e + 1] == t)
                    continue;
                const bool begins = in.first_edge[t] >= tile.begin,
                           ends = in.first_edge[t + 1] <= tile.begin + tile.count;
                Real *const to = begins && ends
                                     ? in.sums + tile.atom(t)
                                     : in.partial + tile.atom(2 * (tile.begin / Tile::EDGES) + (begins ? 1 : 0));
                each<2 * l + 1>([&](auto k) {
                    to[(l * l + k) * channels + c] = sum[k];
                    sum[k] = 0;
                });
            }
        });
    }
}

} // namespace

} // namespace equistride
