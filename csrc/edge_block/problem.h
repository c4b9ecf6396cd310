// What the host tells the kernels that take tiles of edges through the block, and the choice among them.
#pragma once
#include "cuda_launch.h"
#include "edge_block/kernels.h"

#include <algorithm>
#include <c10/util/Half.h>

namespace equistride {

enum class Arithmetic { fma, split, tf32 };

constexpr int TILE_THREADS = 256, TILE_WARPS = TILE_THREADS / WARP;
constexpr int GROUPS = 4; // of edges, in a warp

enum class Form { single, mirror, general }; // of the map of an order: see Layer

// y+ and y- of an order from x+ and x-; y+ alone in the form `single`. Places are numbers from the start of a row.
template <class Real> struct Product {
    const Real *matrix[3], *bias; // bias null: none
    int k, n, x_plus, x_minus, y_plus, y_minus;
    Form form;
};

// Independent products, the longest first. With several parts each takes a share of k, and part p puts its sums at
// p * part_width.
template <class Real> struct Products {
    int count = 0, parts = 1, part_width = 0;
    Product<Real> of[MAX_L + 1];
};

// From row to row of a tile's memory, for so many numbers: 16 bytes beyond a multiple of 128, so that no bank is met
// twice.
inline int row_step(int64_t numbers, int64_t bytes) {
    const int64_t line = 128 / bytes;
    return int((numbers + line - 1) / line * line + 16 / bytes);
}

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
        z = int(shape.rows * shape.hidden + 3) / 4 * 4;
        wide = row_step(std::max({shape.scaled, z + shape.rows * shape.channels, (radial + 3) / 4 * 4}), bytes);
        narrow = row_step(std::max(shape.weights, shape.inner), bytes);
        hidden = row_step(radial, bytes);
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

// A kernel that takes tiles through the block, and the edges of a tile.
template <class Real> struct Kernel {
    void (*run)(Problem<Real>);
    int edges;
    bool shared; // whether a tile lies in shared memory
};

// For a layout. Each arithmetic is compiled in a file of its own.
template <class Real, Arithmetic HOW> Kernel<Real> kernel_for(const Layout &layout);

} // namespace equistride
