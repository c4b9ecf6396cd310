// The bins of the neighbour search and which rows of bins a bin must look at. Host and device.
//
// Bins are cut along the lattice vectors. Along the run axis the bins of a row lie one after the other in memory, so
// the atoms near a bin form a few contiguous runs. Which rows, and how far along each, follows from the geometry of two
// bins alone: the smallest distance square to the run axis, then what is left of the cutoff along it.
#pragma once
#include "neighbors/lattice.h"
#include <cstdint>

namespace equistride {

struct Grid {
    int run, v, w;        // the axes: along the rows, and the two that count rows
    int bins[3];          // by axis of the cell
    int reach[3];         // bins that the cutoff spans
    int images[3];        // largest image number met
    double origin[3];     // fractional coordinate where bin 0 begins
    double scale[3];      // fractional coordinate -> bins
    double vectors[3][3]; // edges of one bin
};

EQUISTRIDE_HD inline int floor_div(int a, int b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
EQUISTRIDE_HD inline double clamp_to(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

// low, high: range of the fractional coordinates (read along axes without periodicity). Bins are at least cutoff /
// along long along the run axis and cutoff / across thick across it; there are no more than max_bins in all.
EQUISTRIDE_HD inline Grid make_grid(const Lattice &lattice, double cutoff, const double *low, const double *high,
                                    double max_bins, double along, double across) {
    Grid grid;
    double span[3], count[3];
    for (int k = 0; k < 3; ++k) {
        grid.origin[k] = lattice.periodic[k] ? 0 : low[k];
        span[k] = lattice.periodic[k] ? 1 : high[k] - low[k];
        if (!lattice.periodic[k])
            span[k] = span[k] > cutoff ? span[k] : cutoff;
    }
    grid.run = 0;
    for (int k = 1; k < 3; ++k)
        if (lattice.height[k] * span[k] > lattice.height[grid.run] * span[grid.run])
            grid.run = k;
    grid.v = (grid.run + 1) % 3;
    grid.w = (grid.run + 2) % 3;
    for (int k = 0; k < 3; ++k)
        count[k] =
            clamp_to(std::floor(lattice.height[k] * span[k] / cutoff * (k == grid.run ? along : across)), 1, 1e9);
    for (double all = count[0] * count[1] * count[2]; all > max_bins; all = count[0] * count[1] * count[2]) {
        const double shrink = std::cbrt(max_bins / all);
        for (int k = 0; k < 3; ++k)
            count[k] = clamp_to(std::floor(count[k] * shrink), 1, 1e9);
    }
    for (int k = 0; k < 3; ++k) {
        const double n = count[k];
        grid.bins[k] = int(n);
        grid.scale[k] = n / span[k];
        grid.reach[k] = int(clamp_to(std::ceil(cutoff * n / (lattice.height[k] * span[k]) + 1e-6), 1, 1e8));
        grid.images[k] = lattice.periodic[k] ? (grid.reach[k] + grid.bins[k] - 1) / grid.bins[k] : 0;
        for (int x = 0; x < 3; ++x)
            grid.vectors[k][x] = lattice.rows[k][x] * span[k] / n;
    }
    return grid;
}

// Cut as finely across the rows as still fills the vectors of the scan: `crowd` atoms a run and more are too many.
EQUISTRIDE_HD inline Grid choose_grid(const Lattice &lattice, double cutoff, const double *low, const double *high,
                                      double atoms, double crowd) {
    double volume = 1;
    for (int k = 0; k < 3; ++k)
        if (!lattice.periodic[k])
            volume *= high[k] - low[k] > cutoff ? high[k] - low[k] : cutoff;
    double normal[3];
    cross(lattice.rows[1], lattice.rows[2], normal);
    volume *= std::fabs(dot(lattice.rows[0], normal));
    const double run = atoms / volume * cutoff * cutoff * cutoff * 2.25; // atoms of a run one cutoff thick
    return make_grid(lattice, cutoff, low, high, 2 * atoms + 64, 4, run > 2 * crowd ? 2 : 1);
}

// The image number of a periodic image, packed in bits that sort as (x, y, z).
constexpr int IMAGE_BITS = 30;
struct ImageCode {
    int images[3], offset[3], bits;
    uint64_t mask[3];

    EQUISTRIDE_HD explicit ImageCode(const Grid &grid) : bits(0) {
        for (int k = 2; k >= 0; --k) {
            int width = 0;
            for (unsigned most = 2 * unsigned(grid.images[k]); most > 0; most >>= 1)
                ++width;
            images[k] = grid.images[k];
            offset[k] = bits;
            mask[k] = (uint64_t(1) << width) - 1;
            bits += width;
        }
    }
    EQUISTRIDE_HD uint64_t pack(int x, int y, int z) const {
        return uint64_t(x + images[0]) << offset[0] | uint64_t(y + images[1]) << offset[1] |
               uint64_t(z + images[2]) << offset[2];
    }
    EQUISTRIDE_HD int unpack(uint64_t code, int k) const { return int(code >> offset[k] & mask[k]) - images[k]; }
};

// Squared distances in float32: below inner inside, from outer on outside, between them only float64 can tell.
struct Band {
    float inner, outer;
    double cutoff2;
};

// `reach` bounds the coordinates, which are taken about the middle of the structure.
EQUISTRIDE_HD inline Band make_band(double cutoff, double reach) {
    const double unit = 0x1p-24, off = unit * 2 * (reach + cutoff);
    const double slack = 2 * (2 * 1.75 * cutoff * off + 3 * off * off + 8 * unit * cutoff * cutoff);
    return {float(cutoff * cutoff - slack), float(cutoff * cutoff + slack), cutoff * cutoff};
}

EQUISTRIDE_HD inline int bin_along(const Grid &grid, int k, double fractional) {
    return int(clamp_to((fractional - grid.origin[k]) * grid.scale[k], 0, grid.bins[k] - 1));
}

EQUISTRIDE_HD inline int bin_index(const Grid &grid, int run, int v, int w) {
    return (w * grid.bins[grid.v] + v) * grid.bins[grid.run] + run;
}

// The bin along an axis within the cell, and the image that it lies in; -1 where there is none.
EQUISTRIDE_HD inline int wrap_bin(const Grid &grid, const Lattice &lattice, int axis, int bin, int *image) {
    image[axis] = lattice.periodic[axis] ? floor_div(bin, grid.bins[axis]) : 0;
    bin -= image[axis] * grid.bins[axis];
    return bin < grid.bins[axis] ? bin : -1;
}

// Smallest |(dv + s) b + (dw + t) c| over -1 <= s, t <= 1, with b.b = bb, b.c = bc, c.c = cc: squared.
EQUISTRIDE_HD inline double row_gap2(double dv, double dw, double bb, double bc, double cc) {
    if (std::fabs(dv) <= 1 && std::fabs(dw) <= 1)
        return 0;
    double best = 1e300;
    for (int side = -1; side <= 1; side += 2) {
        const double v = dv + side, t = clamp_to(-v * bc / cc, dw - 1, dw + 1);
        const double w = dw + side, s = clamp_to(-w * bc / bb, dv - 1, dv + 1);
        const double on_v = v * v * bb + 2 * v * t * bc + t * t * cc, on_w = s * s * bb + 2 * s * w * bc + w * w * cc;
        best = on_v < best ? on_v : best;
        best = on_w < best ? on_w : best;
    }
    return best;
}

struct RowSpan {
    int first, last; // bins along the run axis, relative to the own bin; empty where first > last
};

// What a bin sees of the row that lies dv, dw rows away.
EQUISTRIDE_HD inline RowSpan row_span(const Grid &grid, double cutoff, int dv, int dw) {
    const double *a = grid.vectors[grid.run], *b = grid.vectors[grid.v], *c = grid.vectors[grid.w];
    const double length = std::sqrt(dot(a, a)), ba = dot(a, b) / length, ca = dot(a, c) / length;
    const double bb = dot(b, b) - ba * ba, cc = dot(c, c) - ca * ca, bc = dot(b, c) - ba * ca;
    const double left = cutoff * cutoff * (1 + 1e-9) - row_gap2(dv, dw, bb, bc, cc);
    if (left < 0)
        return {1, 0};
    const double half = std::sqrt(left), middle = dv * ba + dw * ca, slack = std::fabs(ba) + std::fabs(ca);
    const double reach = grid.reach[grid.run];
    return {int(clamp_to(std::floor((-half - middle - slack) / length - 1e-6), -reach, reach)),
            int(clamp_to(std::ceil((half - middle + slack) / length + 1e-6), -reach, reach))};
}

} // namespace equistride
