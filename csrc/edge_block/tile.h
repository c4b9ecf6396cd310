// A tile on the GPU: the edges that a block of threads takes through the edge block together, and where their numbers
// lie.
#pragma once
#include "edge_block/copies.h"
#include "edge_block/tensor_cores.h"

namespace equistride {

namespace {

// Runs of numbers of each edge: `runs` of `numbers`, one after the other, from row which[e] of a tensor on, or row e.
template <class Real> struct Source {
    const Real *from;
    const int64_t *which; // null: the edges are the rows
    int64_t step;         // from row to row
    int runs, numbers;
};
// Where they go: numbers from the start of the tile to the first, from edge to edge and from run to run.
struct Target {
    int place, stride, apart;
};

// By all threads, whatever the edge, 16 bytes at a time where all places allow it: as much as can be is under way.
template <class Real, bool SHARED>
EQUISTRIDE_NOINLINE __device__ void fetch_rows(Real *memory, const Source<Real> source, const Target target,
                                               int count) {
    const auto copy = [&](auto size) {
        constexpr int N = size;
        const int pieces = source.numbers / N, of_edge = source.runs * pieces;
#pragma unroll 4
        for (int k = threadIdx.x; k < count * of_edge; k += TILE_THREADS) {
            const int e = k / of_edge, rest = k - e * of_edge, run = rest / pieces, at = (rest - run * pieces) * N;
            const int64_t row = source.which == nullptr ? e : source.which[e];
            const Real *const from = source.from + row * source.step + run * source.numbers + at;
            Real *const to = memory + target.place + e * target.stride + run * target.apart + at;
            if constexpr (SHARED) {
                begin_copy<N *int(sizeof(Real))>(to, from);
            } else {
                for (int i = 0; i < N; ++i)
                    to[i] = from[i];
            }
        }
    };
    constexpr int MOST = 16 / int(sizeof(Real));
    const bool whole = (source.numbers | source.step | target.place | target.stride | target.apart) % MOST == 0 &&
                       reinterpret_cast<uintptr_t>(source.from) % 16 == 0;
    if (whole)
        copy(std::integral_constant<int, MOST>{});
    else
        copy(std::integral_constant<int, 1>{});
}

// The tile that a block works on, in shared memory or not. How: Fma or TensorCores.
template <class How, bool SHARED> struct Tile {
    using Real = typename How::Real;
    static constexpr int EDGES = How::EDGES;

    const Problem<Real> &in;
    int64_t begin; // its first edge
    int count;     // its edges

    __device__ __forceinline__ Real *memory() const {
        return memory_of_tile<SHARED>(in.memory, int64_t(EDGES) * in.layout.edge);
    }
    __device__ __forceinline__ int narrow_place() const { return EDGES * in.layout.wide; }
    __device__ __forceinline__ int hidden_place() const { return narrow_place() + EDGES * in.layout.narrow; }
    __device__ __forceinline__ int frame_place() const { return hidden_place() + EDGES * in.layout.hidden; }

    __device__ __forceinline__ Real *wide(int e) const { return memory() + e * in.layout.wide; }
    __device__ __forceinline__ Real *z(int e) const { return wide(e) + in.layout.z; }
    __device__ __forceinline__ Real *narrow(int e) const { return memory() + narrow_place() + e * in.layout.narrow; }
    __device__ __forceinline__ Real *frame(int e) const { return memory() + frame_place() + e * in.layout.frame; }
    __device__ __forceinline__ Real *torque(int e) const { return frame(e) + in.shape.frame_size; }
    __device__ __forceinline__ int64_t atom(int64_t i) const { return i * in.shape.size * in.shape.channels; }

    // body(edge, lane), by warps.
    template <class Body> __device__ __forceinline__ void each_edge(Body &&body) const {
        each_row(count, [&](int e) { body(e, int(threadIdx.x % WARP)); });
    }

    // Begin to copy what is of the tile's edges into its rows: fetch_rows().
    __device__ __forceinline__ void fetch(Source<Real> from, Target to) const {
        from.from += from.which == nullptr ? begin * from.step : 0;
        from.which += from.which == nullptr ? 0 : begin;
        fetch_rows<Real, SHARED>(memory(), from, to, count);
    }
};

// The matrix products of the whole block, one code for all layers; x and y, multiples of four, are places of rows in
// the tile's memory.
template <class How, bool SHARED, class Real = typename How::Real>
EQUISTRIDE_NOINLINE __device__ void multiply_rows(const Problem<Real> &in, const Products<Real> &products, int x,
                                                  int x_stride, int y, int y_stride) {
    Real *const memory = Tile<How, SHARED>{in, 0, 0}.memory();
    multiply(How(in), products, memory + x, x_stride, memory + y, y_stride);
}

} // namespace

} // namespace equistride
