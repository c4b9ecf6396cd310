#include "evaluation/box.h"

#include "neighbors/lattice.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

namespace equistride {
namespace {

constexpr double CLOSEST_IMAGE = 1.1; // A; of equal atoms only hydrogen's come nearer, and never in rows: N2 has 1.10 A
constexpr double DENSEST = 2;         // atoms in a cubic A; diamond has 0.18, hydrogen at 2 TPa about 1

using Vector = std::array<double, 3>;

/// Of the vectors made as short as pairs of them can be, the shortest sum of at most one of each.
double shortest_translation(const Lattice &lattice) {
    std::vector<Vector> axes;
    for (int k = 0; k < 3; k++)
        if (lattice.periodic[k])
            axes.push_back({lattice.rows[k][0], lattice.rows[k][1], lattice.rows[k][2]});
    const auto add = [](Vector &to, double times, const Vector &axis) {
        for (std::size_t x = 0; x < 3; x++)
            to[x] += times * axis[x];
    };
    for (bool shorter = true; shorter;) {
        shorter = false;
        for (Vector &a : axes)
            for (const Vector &b : axes) {
                const double times = dot(a.data(), b.data()) / dot(b.data(), b.data());
                if (&a == &b || std::abs(times) < 0.5 + 1e-9)
                    continue;
                add(a, -std::round(times), b);
                shorter = true;
            }
    }
    std::vector<Vector> sums = {{0, 0, 0}};
    for (const Vector &axis : axes)
        for (std::size_t k = 0, known = sums.size(); k < known; k++)
            for (const double sign : {-1.0, 1.0}) {
                Vector sum = sums[k];
                add(sum, sign, axis);
                sums.push_back(sum);
            }
    double shortest = INFINITY;
    for (std::size_t k = 1; k < sums.size(); k++)
        shortest = std::min(shortest, std::sqrt(dot(sums[k].data(), sums[k].data())));
    return shortest;
}

} // namespace

void check_box(const at::Tensor &cell, std::int64_t atoms, const Metadata &metadata) {
    if (!cell.defined())
        return;
    const at::Tensor rows = cell.to(at::kCPU, at::kDouble).contiguous();
    const auto *h = rows.const_data_ptr<double>();
    bool pbc[3];
    for (int k = 0; k < 3; k++)
        pbc[k] = dot(h + 3 * k, h + 3 * k) > 0;
    const Lattice lattice = make_lattice(h, pbc);
    if (lattice.singular)
        return;
    const auto refuse_unless = [](bool so, const char *what, const std::string &expected, const std::string &found) {
        TORCH_CHECK_VALUE(so, "the box is too small: ", what, "; expected ", expected, "; found ", found,
                          "; give the system its box, or none where it is a molecule by itself");
    };
    const Limits &limits = metadata.contract.limits;
    const double closest = std::max(CLOSEST_IMAGE, limits.shortest_bond), image = shortest_translation(lattice);
    refuse_unless(image >= closest, "each atom meets its own image nearer than atoms can be",
                  c10::str(closest, " A or more"), c10::str(image, " A"));
    double normal[3], thinnest = INFINITY;
    cross(lattice.rows[1], lattice.rows[2], normal);
    const double volume = std::abs(dot(lattice.rows[0], normal)), count = static_cast<double>(atoms);
    refuse_unless(!(pbc[0] && pbc[1] && pbc[2]) || count < DENSEST * volume, "its atoms are denser than any matter",
                  c10::str("fewer than ", DENSEST, " atoms in a cubic A"), c10::str(atoms, " in ", volume, " cubic A"));
    for (int k = 0; k < 3; k++)
        if (pbc[k])
            thinnest = std::min(thinnest, lattice.height[k]);
    const double smallest = limits.smallest_box * metadata.cutoff;
    refuse_unless(thinnest >= smallest * (1 - 1e-9), "the model does not hold for it",
                  c10::str(smallest, " A or more between opposite faces, ", limits.smallest_box, " cutoffs"),
                  c10::str(thinnest, " A"));
}

} // namespace equistride
