// The kernel of the edge block on the GPU: a tile of edges through the block, and back.
#pragma once
#include "edge_block/rotation_kernels.h"
#include "edge_block/sigmoid.h"

namespace equistride {

namespace {

// wide = gated rows, of the numbers between the layers in narrow.
template <class Tile> __device__ void gate(const Tile &tile) {
    const auto &in = tile.in;
    const Shape &shape = in.shape;
    const int h = int(shape.hidden), gates = int(shape.gates);
    tile.each_edge([&](int e, int lane) {
        const auto *const inner = tile.narrow(e), *const rows = inner + gates;
        auto *const out = tile.wide(e);
        for (int c = lane; c < h; c += WARP) {
            out[c] = rows[c] * sigmoid(rows[c]);
            each<MAX_L>([&](auto below) {
                constexpr int l = below + 1;
                if (l > shape.l_max)
                    return;
                const auto open = sigmoid(inner[below * h + c]);
                each<2 * l + 1>([&](auto k) {
                    if (order_of<l>(k) <= shape.m_max)
                        out[shape.row[l][k] * h + c] = open * rows[shape.row[l][k] * h + c];
                });
            });
        }
    });
}

// Backwards: narrow = gradient to the numbers between the layers, in their place; that to the gated rows is in wide.
template <class Tile> __device__ void ungate(const Tile &tile) {
    const auto &in = tile.in;
    const Shape &shape = in.shape;
    const int h = int(shape.hidden), gates = int(shape.gates);
    using Real = typename Tile::Real;
    tile.each_edge([&](int e, int lane) {
        Real *const inner = tile.narrow(e), *const rows = inner + gates;
        const Real *const grad = tile.wide(e);
        for (int c = lane; c < h; c += WARP) {
            const Real scalar = rows[c], open = sigmoid(scalar);
            rows[c] = grad[c] * open * (1 + scalar * (1 - open));
            each<MAX_L>([&](auto below) {
                constexpr int l = below + 1;
                if (l > shape.l_max)
                    return;
                const Real open = sigmoid(inner[below * h + c]);
                Real on_gate = 0;
                each<2 * l + 1>([&](auto k) {
                    if (order_of<l>(k) <= shape.m_max) {
                        Real &place = rows[shape.row[l][k] * h + c];
                        const Real g = grad[shape.row[l][k] * h + c];
                        on_gate += g * place;
                        place = g * open;
                    }
                });
                inner[below * h + c] = on_gate * open * (1 - open);
            });
        }
    });
}

template <class Tile> __device__ __forceinline__ void fetch_frames(const Tile &tile) {
    const auto &in = tile.in;
    const int size = in.shape.frame_size;
    tile.fetch({in.frames, nullptr, size, 1, size}, {tile.frame_place(), in.layout.frame, 0});
}
template <class Tile> __device__ __forceinline__ void fetch_hidden(const Tile &tile) {
    const auto &in = tile.in;
    tile.fetch({in.hidden, nullptr, in.radial_channels, 1, in.radial_channels},
               {tile.hidden_place(), in.layout.hidden, 0});
}
// What the forward needs, in the order in which it does, in two groups.
template <class Tile> __device__ void fetch_forward(const Tile &tile) {
    fetch_hidden(tile);
    end_group();
    fetch_frames(tile);
    if (fetches_features(tile.in.shape))
        fetch_features(tile);
    end_group();
}
// What the backward needs where the state was kept, likewise.
template <class Tile> __device__ void fetch_backward(const Tile &tile) {
    const auto &in = tile.in;
    const int state = int(in.shape.state), inner = int(in.shape.inner);
    fetch_frames(tile);
    tile.fetch({in.kept + inner, nullptr, state, 1, state - inner}, {in.layout.z, in.layout.wide, 0});
    if (fetches_grad(in.shape))
        fetch_grad(tile);
    end_group();
    tile.fetch({in.kept, nullptr, state, 1, inner}, {tile.narrow_place(), in.layout.narrow, 0});
    fetch_hidden(tile);
    end_group();
}

// Between two steps all threads wait: each reads what others wrote or fetched.
template <class How, bool SHARED> __device__ void go_forward(const Tile<How, SHARED> &tile) {
    const auto &in = tile.in;
    const Layout &at = in.layout;
    const auto multiply = [](const auto &...arguments) { multiply_rows<How, SHARED>(arguments...); };
    wait_but<1>();
    __syncthreads();
    multiply(in, in.radial, tile.hidden_place(), at.hidden, tile.narrow_place(), at.narrow);
    wait_but<0>();
    __syncthreads();
    rotate(tile);
    __syncthreads();
    multiply(in, in.first, 0, at.wide, tile.narrow_place(), at.narrow);
    __syncthreads();
    gate(tile);
    __syncthreads();
    multiply(in, in.second, 0, at.wide, at.z, at.wide);
    __syncthreads();
}

// Write what the backward needs of the first edges.
template <class Tile> __device__ void keep(const Tile &tile) {
    const auto &in = tile.in;
    const Shape &shape = in.shape;
    tile.each_edge([&](int e, int lane) {
        if (tile.begin + e >= in.num_kept)
            return;
        auto *const to = in.kept + (tile.begin + e) * shape.state;
        for (int k = lane; k < shape.state; k += WARP)
            to[k] = k < shape.inner ? tile.narrow(e)[k] : tile.z(e)[k - shape.inner];
    });
}

// From z in wide, and the numbers between the layers in narrow, which with `fetched` may still be on their way.
template <class How, bool SHARED> __device__ void go_back(const Tile<How, SHARED> &tile, bool fetched) {
    const auto &in = tile.in;
    const Shape &shape = in.shape;
    const Layout &at = in.layout;
    const auto multiply = [](const auto &...arguments) { multiply_rows<How, SHARED>(arguments...); };
    unrotate_back(tile, fetched && fetches_grad(shape));
    __syncthreads();
    multiply(in, in.second_back, at.z, at.wide, 0, at.wide);
    wait_but<0>();
    __syncthreads();
    ungate(tile);
    __syncthreads();
    multiply(in, in.first_back, tile.narrow_place(), at.narrow, 0, at.wide);
    __syncthreads();
    multiply(in, in.radial, tile.hidden_place(), at.hidden, tile.narrow_place(), at.narrow);
    __syncthreads();
    sum_to_receivers(tile, [&](int e, int row, int l, int order, int c) {
        const int column = int(shape.channels) + c;
        return tile.wide(e)[row * 2 * int(shape.channels) + column] *
               tile.narrow(e)[weight_column(shape, l, order) + column];
    });
    __syncthreads();
    unrotate(tile);
    __syncthreads();
    multiply(in, in.radial_back, tile.narrow_place(), at.narrow, 0, at.wide);
    __syncthreads();
    tile.each_edge([&](int e, int lane) {
        for (int c = lane; c < in.radial_channels; c += WARP) {
            typename How::Real sum = 0;
            for (int part = 0; part < in.radial_back.parts; ++part)
                sum += tile.wide(e)[part * in.radial_back.part_width + c];
            in.on_hidden[(tile.begin + e) * in.radial_channels + c] = sum;
        }
    });
}

// One block of threads a tile, or in turn. An edge's numbers do not depend on the tile that it is in.
template <class How, bool SHARED>
__global__ void __launch_bounds__(TILE_THREADS, 1) run_tiles(const __grid_constant__ Problem<typename How::Real> in) {
    using Block = Tile<How, SHARED>;
    if (*in.wrong != 0)
        return;
    for (int64_t begin = in.begin + int64_t(blockIdx.x) * Block::EDGES; begin < in.end;
         begin += int64_t(gridDim.x) * Block::EDGES) {
        const Block tile{in, begin, int(min(int64_t(Block::EDGES), in.end - begin))};
        if (in.grad == nullptr) {
            fetch_forward(tile);
            go_forward(tile);
            keep(tile);
            sum_to_receivers(tile, [&](int e, int row, int, int, int c) {
                return in.envelope[tile.begin + e] * tile.z(e)[row * int(in.shape.channels) + c];
            });
        } else {
            const bool kept = begin + tile.count <= in.num_kept;
            if (kept) {
                fetch_backward(tile);
                wait_but<1>();
                __syncthreads();
            } else {
                fetch_forward(tile);
                go_forward(tile);
            }
            go_back(tile, kept);
        }
        __syncthreads();
    }
}

} // namespace

} // namespace equistride
