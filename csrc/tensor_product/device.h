// What the kernels of the convolution share on the GPU: the problem, and the edges that a warp works on next.
#pragma once
#include "cuda_edges.h"
#include "tensor_product/spline.h"

namespace equistride {

namespace {

// An owner is the atom whose edges a warp walks over: the receiver, in the order of the edges, or the sender, through
// `order`. At the other end of each edge is the other one.
template <class Real> struct Problem {
    const Real *x, *y;
    const Real *weights; // [E, weights_width], or the table's rows [K, weights_width]
    const Real *lengths; // [E]; null without a table
    const int64_t *receiver, *sender;
    const int64_t *order; // null: as they are
    const int64_t *first; // [owners + 1]
    const int *wrong;     // not zero: edges that are not sorted or name atoms that are not there; all is NaN then
    int64_t x_width, weights_width, out_width, edges, owners;
    int y_width;
    double start, step, last; // of the table: first knot, distance of the knots, number of intervals
};

// What a warp does: the owner, its edges, and the channel of each lane.
struct Turn {
    bool there, wrong, active; // is there an owner, are edges wrong, does the lane have a channel
    int lane, channel;
    int64_t owner, begin, end;
};
template <class Real, class Unit> __device__ __forceinline__ Turn turn_of(const Problem<Real> &in, const Unit &unit) {
    const int lane = threadIdx.x % WARP, channel = unit.channel + lane;
    const int64_t owner = int64_t(blockIdx.x) * WARPS + threadIdx.x / WARP;
    const bool there = owner < in.owners, wrong = *in.wrong != 0, walks = there && !wrong;
    return {there,   wrong, channel < unit.channels,     lane,
            channel, owner, walks ? in.first[owner] : 0, walks ? in.first[owner + 1] : 0};
}

// Edges that a warp has in shared memory: their numbers, harmonics and splines.
template <class Real, int COUNT, int HARMONICS, bool TABLE> struct Stage {
    static constexpr int PADDED = (HARMONICS + 3) / 4 * 4; // so that four numbers are one load
    alignas(16) Real y[COUNT][PADDED];
    alignas(16) Real basis[TABLE ? COUNT : 1][4], slope[TABLE ? COUNT : 1][3];
    int64_t edge[COUNT], other[COUNT], row[TABLE ? COUNT : 1]; // row: where the spline's first row begins in the table

    // Read `count` edges from place `begin` of the owner's order on. `column` maps 0 .. HARMONICS - 1 to columns of y,
    // or to -1.
    template <class Column>
    __device__ void read(const Problem<Real> &in, int64_t begin, int count, int lane, const Column &column) {
        __syncwarp(); // all lanes are done with the edges before
        if (lane < count) {
            const int64_t e = in.order == nullptr ? begin + lane : in.order[begin + lane];
            edge[lane] = e;
            other[lane] = (in.order == nullptr ? in.sender : in.receiver)[e];
            if constexpr (TABLE)
                place(in, e, lane);
        }
        __syncwarp();
        for (int k = lane; k < count * HARMONICS; k += WARP) {
            const int at = column(k % HARMONICS);
            y[k / HARMONICS][k % HARMONICS] = at < 0 ? Real(0) : in.y[edge[k / HARMONICS] * in.y_width + at];
        }
        __syncwarp();
    }

    // Value, and slope along the length, of the weight in a column.
    __device__ Real weight(const Problem<Real> &in, int k, int column) const {
        if constexpr (TABLE) {
            const Rows at(in, row[k] + column);
            return (basis[k][0] * at.a + basis[k][1] * at.b) + (basis[k][2] * at.c + basis[k][3] * at.d);
        } else {
            return in.weights[edge[k] * in.weights_width + column];
        }
    }
    __device__ Real weight_slope(const Problem<Real> &in, int k, int column) const {
        const Rows at(in, row[k] + column);
        return slope[k][0] * (at.b - at.a) + slope[k][1] * (at.c - at.b) + slope[k][2] * (at.d - at.c);
    }

private:
    struct Rows { // of one column: the four coefficients that reach a length
        Real a, b, c, d;
        __device__ Rows(const Problem<Real> &in, int64_t at)
            : a(in.weights[at]), b(in.weights[at + in.weights_width]), c(in.weights[at + 2 * in.weights_width]),
              d(in.weights[at + 3 * in.weights_width]) {}
    };

    // A length outside the table gives NaN; a kernel cannot raise. Rounding may put one of float32 a little beyond.
    __device__ void place(const Problem<Real> &in, int64_t e, int lane) {
        const double at = (double(in.lengths[e]) - in.start) / in.step;
        if (at > -1e-3 && at < in.last + 1e-3) {
            const double knot = fmin(fmax(floor(at), 0.0), in.last - 1);
            row[lane] = int64_t(knot) * in.weights_width;
            cubic_basis(at - knot, 1 / in.step, basis[lane], slope[lane]);
        } else {
            row[lane] = 0;
            for (int k = 0; k < 4; ++k)
                basis[lane][k] = slope[lane][k % 3] = not_a_number<Real>();
        }
    }
};

// Where the gradients go; null where one is not wanted.
template <class Real> struct Gradient {
    const Real *grad; // of the output
    Real *x;          // written, or added to
    Real *weights;    // [E, weights_width], written; null with a table
    Real *parts;      // [units, E, slots]: what each unit gives to y and the lengths
    bool add, y, lengths;
};

} // namespace

} // namespace equistride
