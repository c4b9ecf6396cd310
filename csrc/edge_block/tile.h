// A tile on the GPU: the edges that a block of threads takes through the edge block together, and where their numbers
// lie.
#pragma once
#include "edge_block/tensor_cores.h"

#include <algorithm>

namespace equistride {

namespace {

// Rows of the tile's memory, each an edge's. What is in them, one after the other:
//   wide    scaled [rows, 2 channels]; gated [rows, hidden], z [rows, channels]; and backward, of their gradients, the
//           same, then parts of those to the last radial layer's input
//   narrow  radial weights; what lies between the layers; and backward, of their gradients, the same
//   hidden  input of the last radial layer
//   frame   D^l; torque [3]
struct Layout {
    int wide, narrow, hidden, frame; // from row to row
    int z;                           // place of z in a wide row, where four numbers can be loaded at once
    int edge;                        // numbers an edge, in all

    Layout(const Shape &shape, int64_t radial, int64_t bytes) {
        const int64_t line = 128 / bytes, apart = 16 / bytes;
        const auto stride = [&](int64_t numbers) { return int((numbers + line - 1) / line * line + apart); };
        z = int(shape.rows * shape.hidden + 3) / 4 * 4;
        wide = stride(std::max({shape.scaled, z + shape.rows * shape.channels, (radial + 3) / 4 * 4}));
        narrow = stride(std::max(shape.weights, shape.inner));
        hidden = stride(radial);
        frame = shape.frame_size + 3;
        edge = wide + narrow + hidden + frame;
    }
};

template <class Real> struct Problem {
    Shape shape;
    Layout layout;
    Products<Real> radial, first, second, second_back, first_back, radial_back;
    const Real *x, *vectors, *frames, *envelope, *hidden;
    const int64_t *receiver, *sender, *first_edge; // the last: of each receiver, and the end
    const int *wrong;                              // not zero: nothing is done
    int64_t begin, end;                            // edges of this launch; begins with a tile
    const Real *weights;                           // all matrices
    const c10::Half *halves;                       // the same as float16, for `tf32`
    int radial_channels;
    Real *memory; // where it does not fit into shared memory: of each block
    Real *kept;   // state [num_kept, state]: written going forward, read going backward
    int64_t num_kept;
    Real *sums;       // [N, size, channels], written for receivers whose edges lie in one tile;
    Real *partial;    // [tiles, 2, size, channels], of the others: that goes on from the tile before, into the next
    const Real *grad; // [N, size, channels]; null going forward
    Real *waiting;    // [end - begin, size, channels], for the senders
    Real *on_vectors, *on_envelope, *on_hidden;
};

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
