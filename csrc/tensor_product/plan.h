// The paths as the loops want them: grouped by coupling, with the coefficients as short lists of what is not zero.
#pragma once
#include "tensor_product/kernels.h"
#include "tensor_product/tensor_product.h"
#include "threads.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace equistride {

// Paths that differ in the blocks of x and of the output only: they share a matrix M[m1, m3].
struct Group {
    size_t first_path, last_path;
    int64_t entry; // first of M, among the entries of all groups
    size_t first_term, last_term;
};

// Paths that read one block of x, as the backward takes them.
struct Family {
    size_t first_path, last_path;
};
template <class Real> struct TurnedPath {
    Path path;
    int64_t turned; // first of its numbers among those of its family
    std::vector<TurnTerm<Real>> terms;
};

template <class Real> struct Plan {
    std::vector<Path> paths; // group by group; so the blocks of x of one degree stay in cache
    std::vector<Group> groups;
    int64_t entries = 0;
    std::vector<Term<Real>> terms;
    std::vector<TurnedPath<Real>> turned_paths; // family by family
    std::vector<Family> families;
    int64_t turned_width = 0; // numbers that the largest family needs
    int64_t x_width, y_width, weights_width, out_width;

    Plan(const Paths &from, ArrayRef<double> couplings, int64_t x_columns, int64_t y_columns)
        : paths(from.all), x_width(x_columns), y_width(y_columns), weights_width(from.weights_width),
          out_width(from.out_width) {
        const auto coupling = [](const Path &path) {
            return std::make_tuple(path.l1, path.l2, path.l3, path.y, path.couplings);
        };
        std::stable_sort(paths.begin(), paths.end(),
                         [&](const Path &a, const Path &b) { return coupling(a) < coupling(b); });
        for (size_t p = 0; p < paths.size(); ++p) {
            if (p == 0 || coupling(paths[p]) != coupling(paths[p - 1]))
                add_group(p, couplings.data() + paths[p].couplings);
            groups.back().last_path = p + 1;
        }
        add_families(from.all, couplings.data());
    }

    // Of an edge, going forward, as Threads wants it.
    double work() const {
        double sum = double(weights_width) * MOVE;
        for (const Path &path : paths)
            sum += 2.0 * double(path.channels * (2 * path.l1 + 1) * (2 * path.l3 + 1));
        return sum;
    }

private:
    void add_group(size_t p, const double *coefficients) {
        const size_t first_term = terms.size();
        const int64_t first = entries;
        add_terms(paths[p], coefficients);
        groups.push_back({p, p, first, first_term, terms.size()});
    }

    void add_families(std::vector<Path> by_x, const double *couplings) {
        const auto block = [](const Path &path) { return std::make_tuple(path.x, path.l1, path.channels); };
        std::stable_sort(by_x.begin(), by_x.end(), [&](const Path &a, const Path &b) { return block(a) < block(b); });
        int64_t width = 0;
        for (size_t p = 0; p < by_x.size(); ++p) {
            const Path &path = by_x[p];
            if (p == 0 || block(path) != block(by_x[p - 1])) {
                families.push_back({p, p});
                width = 0;
            }
            families.back().last_path = p + 1;
            turned_paths.push_back({path, width, turn_terms(path, couplings + path.couplings)});
            width += (2 * path.l1 + 1) * (2 * path.l2 + 1) * path.channels;
            turned_width = std::max(turned_width, width);
        }
    }

    // For given m1 and m2 no more than two m3 couple.
    static std::vector<TurnTerm<Real>> turn_terms(const Path &path, const double *coefficients) {
        std::vector<TurnTerm<Real>> out;
        const int l1 = int(path.l1), l2 = int(path.l2), l3 = int(path.l3), d2 = 2 * l2 + 1, d3 = 2 * l3 + 1;
        for (int entry = 0; entry < (2 * l1 + 1) * d2; ++entry) {
            if (std::max({l1, l2, l3}) <= LOOPS_DEGREE && !turns(l1, l2, l3, entry / d2 - l1, entry % d2 - l2))
                continue;
            TurnTerm<Real> term{entry, {0, 0}, {0, 0}};
            for (int m3 = 0, found = 0; m3 < d3; ++m3)
                if (const double value = coefficients[entry * d3 + m3]; value != 0) {
                    TORCH_INTERNAL_ASSERT(found < 2);
                    term.m3[found] = m3;
                    term.value[found++] = Real(value);
                }
            out.push_back(term);
        }
        return out;
    }

    void add_terms(const Path &path, const double *coefficients) {
        const int l1 = int(path.l1), l2 = int(path.l2), l3 = int(path.l3), d2 = 2 * l2 + 1, d3 = 2 * l3 + 1;
        for (int m1 = -l1; m1 <= l1; ++m1)
            for (int m3 = -l3; m3 <= l3; ++m3)
                for (int m2 = -l2; m2 <= l2; ++m2) {
                    const double value = coefficients[((m1 + l1) * d2 + m2 + l2) * d3 + m3 + l3];
                    // The loops skip what this rule excludes, and take M as a multiple of the unit matrix for l2 = 0.
                    TORCH_CHECK_VALUE((value == 0 || couples(l1, l2, l3, m1, m2, m3)) &&
                                          (l2 != 0 || std::fabs(value - (m1 == m3 ? coefficients[0] : 0)) < 1e-12),
                                      "couplings must be Wigner 3j symbols of real spherical harmonics; found ", value,
                                      " for degrees ", l1, ", ", l2, ", ", l3, " and orders ", m1, ", ", m2, ", ", m3,
                                      "; take them from equistride.nn.tensor_product");
                    if (value != 0)
                        terms.push_back(
                            {int32_t(entries + (m1 + l1) * d3 + m3 + l3), int32_t(path.y + m2 + l2), Real(value)});
                }
        entries += (2 * l1 + 1) * d3;
    }
};

} // namespace equistride
