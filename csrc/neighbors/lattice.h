// The lattice as the neighbour search sees it: three independent vectors whatever the periodicity. Host and device.
#pragma once
#include "host_device.h"
#include <cmath>

namespace equistride {

struct Lattice {
    double rows[3][3];    // lattice vectors; without periodicity a unit vector square to the periodic ones
    double inverse[3][3]; // fractional = position @ inverse
    double height[3];     // distance between opposite faces
    bool periodic[3];
    bool singular;
};

EQUISTRIDE_HD inline double dot(const double *a, const double *b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

EQUISTRIDE_HD inline void cross(const double *a, const double *b, double *out) {
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

EQUISTRIDE_HD inline void unit_cross(const double *a, const double *b, double *out) {
    cross(a, b, out);
    const double length = std::sqrt(dot(out, out));
    for (int x = 0; x < 3; ++x)
        out[x] = length > 0 ? out[x] / length : 0;
}

// Replace the vectors of the axes without periodicity; what the cell says there is not read.
EQUISTRIDE_HD inline void complete_rows(Lattice &lattice) {
    double (*rows)[3] = lattice.rows;
    int periodic = 0, axis = 0;
    for (int k = 0; k < 3; ++k) {
        periodic += lattice.periodic[k];
        // With one periodic axis: that one. With two: the missing one.
        for (int x = 0; x < 3; ++x)
            if (!lattice.periodic[k])
                rows[k][x] = k == x;
    }
    if (periodic == 1) {
        while (!lattice.periodic[axis])
            ++axis;
        const double *a = rows[axis];
        int thin = 0;
        for (int x = 1; x < 3; ++x)
            if (std::fabs(a[x]) < std::fabs(a[thin]))
                thin = x;
        const double e[3] = {double(thin == 0), double(thin == 1), double(thin == 2)};
        unit_cross(a, e, rows[(axis + 1) % 3]);
        unit_cross(a, rows[(axis + 1) % 3], rows[(axis + 2) % 3]);
    } else if (periodic == 2) {
        while (lattice.periodic[axis])
            ++axis;
        unit_cross(rows[(axis + 1) % 3], rows[(axis + 2) % 3], rows[axis]);
    }
}

EQUISTRIDE_HD inline Lattice make_lattice(const double *cell, const bool *pbc) {
    Lattice lattice;
    for (int k = 0; k < 3; ++k) {
        lattice.periodic[k] = pbc[k];
        for (int x = 0; x < 3; ++x)
            lattice.rows[k][x] = cell[3 * k + x];
    }
    complete_rows(lattice);
    double normal[3], lengths = 1;
    cross(lattice.rows[1], lattice.rows[2], normal);
    const double det = dot(lattice.rows[0], normal);
    for (int k = 0; k < 3; ++k)
        lengths *= std::sqrt(dot(lattice.rows[k], lattice.rows[k]));
    lattice.singular = !(std::fabs(det) > 1e-9 * lengths) || !std::isfinite(lengths);
    for (int k = 0; k < 3; ++k) {
        cross(lattice.rows[(k + 1) % 3], lattice.rows[(k + 2) % 3], normal);
        for (int x = 0; x < 3; ++x)
            lattice.inverse[x][k] = normal[x] / det;
        lattice.height[k] = std::fabs(det) / std::sqrt(dot(normal, normal));
    }
    return lattice;
}

// shift @ rows; the negated shift gives exactly the negated vector, which keeps the list symmetric.
EQUISTRIDE_HD inline double image_component(const Lattice &lattice, int sx, int sy, int sz, int x) {
    return (sx * lattice.rows[0][x] + sy * lattice.rows[1][x]) + sz * lattice.rows[2][x];
}

} // namespace equistride
