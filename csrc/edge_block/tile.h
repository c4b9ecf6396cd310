// A tile on the GPU: the edges that a block of threads takes through the edge block together, and where their numbers
// lie.
#pragma once
#include "edge_block/tensor_cores.h"

namespace equistride {

namespace {

// The tile that a block works on, in shared memory or not. How: Fma or TensorCores.
template <class How, bool SHARED> struct Tile {
    using Real = typename How::Real;
    static constexpr int EDGES = How::EDGES;

    const Problem<Real> &in;
    int64_t begin; // its first edge
    int count;     // its edges

    __device__ __forceinline__ Real *memory() const {
        if constexpr (SHARED)
            return shared_memory<Real>();
        else
            return in.memory + int64_t(blockIdx.x) * EDGES * in.layout.edge;
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

    // A warp takes one edge after the other; in between, body(edge, lane).
    template <class Body> __device__ __forceinline__ void each_edge(Body &&body) const {
#pragma unroll 1
        for (int e = threadIdx.x / WARP; e < count; e += TILE_WARPS)
            body(e, int(threadIdx.x % WARP));
    }

    // Copy `numbers` an edge into the tile's rows or out of them.
    __device__ void read(const Real *from, int64_t numbers, int place, int stride) const {
        each_edge([&](int e, int lane) {
            Real *const to = memory() + place + e * stride;
            for (int k = lane; k < numbers; k += WARP)
                to[k] = from[(begin + e) * numbers + k];
        });
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
