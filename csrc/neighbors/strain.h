// How far a pair vector can have changed since a list was built. Host and device.
//
// Let F carry the old lattice into the new one (old rows @ F = new rows) and u_i = r_i - old r_i @ F be what atom i
// moved beside that. Then r_ij = old r_ij @ F + u_j - u_i whatever the shift, so |old r_ij| <= (|r_ij| + 2 max|u|)
// |F^-1|. A list with edges up to cutoff + 2 limit misses no pair within the cutoff as long as (cutoff + 2 max|u|) (1 +
// |F^-1 - 1|) <= cutoff + 2 limit.
#pragma once
#include "neighbors/lattice.h"

namespace equistride {

struct Strain {
    double forward[3][3]; // F
    double slack;         // largest |u| for which no pair can be missing; negative where any motion is too much
};

// cutoff < 0: not known; then any change of the cell is too much.
EQUISTRIDE_HD inline Strain measure_strain(const double *cell, const double *reference, double limit, double cutoff) {
    Strain strain{{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}, limit};
    bool same = true, periodic[3];
    for (int k = 0; k < 9; ++k)
        same = same && cell[k] == reference[k];
    if (same)
        return strain;
    strain.slack = -1;
    for (int k = 0; k < 3; ++k) {
        const bool now = cell[3 * k] != 0 || cell[3 * k + 1] != 0 || cell[3 * k + 2] != 0;
        periodic[k] = reference[3 * k] != 0 || reference[3 * k + 1] != 0 || reference[3 * k + 2] != 0;
        if (now != periodic[k])
            return strain;
    }
    const Lattice to = make_lattice(cell, periodic), from = make_lattice(reference, periodic);
    if (to.singular || from.singular || cutoff < 0)
        return strain;
    double change = 0;
    for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) {
            double forward = 0, back = 0;
            for (int k = 0; k < 3; ++k) {
                forward += from.inverse[a][k] * to.rows[k][b];
                back += to.inverse[a][k] * from.rows[k][b];
            }
            strain.forward[a][b] = forward;
            change += (back - (a == b)) * (back - (a == b));
        }
    strain.slack = 0.5 * ((cutoff + 2 * limit) / (1 + std::sqrt(change)) - cutoff);
    return strain;
}

EQUISTRIDE_HD inline bool moved_too_far(const Strain &strain, const double *position, const double *reference) {
    double sum = 0;
    for (int x = 0; x < 3; ++x) {
        const double u = position[x] - (reference[0] * strain.forward[0][x] + reference[1] * strain.forward[1][x] +
                                        reference[2] * strain.forward[2][x]);
        sum += u * u;
    }
    // Written so that a NaN counts as moved.
    return !(strain.slack >= 0 && sum <= strain.slack * strain.slack);
}

} // namespace equistride
