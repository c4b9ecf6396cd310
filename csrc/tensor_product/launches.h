// The paths as the GPU's kernels want them: units of work, one a warp and receiver (or sender), packed into launches.
//
// A sparse unit is a slot of channels of one block of x with all its paths up to degree 2, a dense one a slot of
// channels of one path of any degree. Units of one launch never write the same columns: so nothing needs an atomic
// operation, and what several paths share is summed launch after launch, in one order.
#pragma once
#include "tensor_product/plan.h"
#include "tensor_product/symbols.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

namespace equistride {

constexpr int DENSE_WIDTH = 32; // channels of a slot of a dense unit, one a lane
constexpr int MAX_UNITS = 20;   // of a launch: kernels take them as parameters, of 4 KiB in all
constexpr int MAX_TERMS = 100;  // coefficients of a coupling that can differ from zero; at most 97 up to degree 4

enum class Direction { forward, backward };

template <class Real> struct SparsePath {
    int weights, out, out_stride; // columns
    Real scale;                   // of the symbols
};

template <class Real> struct SparseUnit {
    int x, channels, channel; // columns of the block: first, from row to row; first channel of this slot
    int y[SPARSE_DEGREE + 1]; // first column of each degree, -1 for none
    unsigned present;         // bit k: the pair pair_of(l1, k) is a path
    SparsePath<Real> paths[MAX_PAIRS];
};

template <class Real> struct SparseUnits {
    SparseUnit<Real> all[MAX_UNITS];
};

struct DenseUnit {
    int x, channels, channel, weights, out, out_stride;
};

struct DenseTerm {
    uint8_t entry, harmonic; // of M; from the first of the coupling's degree
};

template <class Real> struct DenseUnits {
    DenseUnit all[MAX_UNITS];
    int l1, l2, l3, y, count; // of the coupling: degrees, first column of the harmonics, terms
    Real value[MAX_TERMS];    // in the order of the entries
    DenseTerm term[MAX_TERMS];
    uint8_t by_harmonic[MAX_TERMS]; // the terms in the order of the harmonics
    uint8_t entry_first[(2 * MAX_DEGREE + 1) * (2 * MAX_DEGREE + 1) + 1], harmonic_first[2 * MAX_DEGREE + 2];
};

template <class Real> struct SparseLaunch {
    int l1, count;
    SparseUnits<Real> units;
};
template <class Real> struct DenseLaunch {
    int count;
    DenseUnits<Real> units;
};

// Columns that units write, to find what several of them share.
class Footprint {
public:
    explicit Footprint(int64_t width) : last_(size_t(width), -1) {}

    // Mark columns for a launch; false where the launch has one of them already.
    bool mark(int64_t first, int64_t count, int launch) {
        bool fresh = true;
        for (int64_t k = first; k < first + count; ++k) {
            fresh = fresh && last_[size_t(k)] != launch;
            shared_ = shared_ || last_[size_t(k)] >= 0;
        }
        std::fill_n(last_.begin() + first, count, launch);
        return fresh;
    }
    bool shared() const { return shared_; }
    bool complete() const { return std::find(last_.begin(), last_.end(), -1) == last_.end(); }

private:
    std::vector<int> last_;
    bool shared_ = false;
};

template <class Real> class Launches {
public:
    std::vector<SparseLaunch<Real>> sparse;
    std::vector<DenseLaunch<Real>> dense;
    bool add = false, clear = false; // to the columns written: several launches share some; some are never written

    // Slots of sparse units are `width` channels wide. Columns are those of the output going forward, of x going
    // backward.
    Launches(const Plan<Real> &plan, ArrayRef<double> couplings, Direction direction, int width)
        : direction_(direction), written_(direction == Direction::forward ? plan.out_width : plan.x_width) {
        const int64_t widest = std::max({plan.x_width, plan.y_width, plan.weights_width, plan.out_width});
        TORCH_CHECK_VALUE(widest <= std::numeric_limits<int>::max(),
                          "rows of x, y, weights and output must be shorter than 2^31; found ", widest, " columns");
        std::vector<Block> blocks;
        for (const Path &path : plan.paths)
            if (const std::optional<double> scale = find_scale(path, couplings))
                put(blocks, path, *scale);
        for (int l1 = 0; l1 <= SPARSE_DEGREE; ++l1)
            for (const Block &block : blocks)
                if (block.l1 == l1)
                    pack_sparse(block, width);
        for (const Group &group : plan.groups)
            if (!find_scale(plan.paths[group.first_path], couplings))
                pack_dense(plan, group);
        add = written_.shared();
        clear = add || !written_.complete();
    }

private:
    struct Block { // one block of x with its paths
        int l1;
        SparseUnit<Real> unit;
    };

    Direction direction_;
    Footprint written_;
    int launch_ = -1;

    // What the path's coefficients are of the compiler's symbols, where they are a multiple.
    static std::optional<double> find_scale(const Path &path, ArrayRef<double> couplings) {
        const int l1 = int(path.l1), l2 = int(path.l2), l3 = int(path.l3);
        if (std::max({l1, l2, l3}) > SPARSE_DEGREE || l3 > l1 + l2 || l3 < std::abs(l1 - l2))
            return std::nullopt;
        const double *coefficients = couplings.data() + path.couplings;
        double scale = 0, largest = 0, norm = 0;
        for (int pass = 0; pass < 2; ++pass)
            for (int m1 = -l1, k = 0; m1 <= l1; ++m1)
                for (int m2 = -l2; m2 <= l2; ++m2)
                    for (int m3 = -l3; m3 <= l3; ++m3, ++k) {
                        const double expected = symbol(l1, l2, l3, m1, m2, m3);
                        if (pass == 0) {
                            scale += expected * coefficients[k];
                            norm += expected * expected;
                            largest = std::max(largest, std::fabs(coefficients[k]));
                        } else if (!(std::fabs(coefficients[k] - scale / norm * expected) <= 1e-12 * largest)) {
                            return std::nullopt;
                        }
                    }
        return scale / norm;
    }

    bool overlap(const SparsePath<Real> &a, int l3, const Path &b) const {
        for (int64_t i = 0; i <= 2 * l3; ++i)
            for (int64_t j = 0; j <= 2 * b.l3; ++j) {
                const int64_t mine = a.out + i * a.out_stride, theirs = b.out + j * b.out_stride;
                if (mine < theirs + b.channels && theirs < mine + b.channels)
                    return true;
            }
        return false;
    }

    bool fits(const Block &block, const Path &path, int pair) const {
        const SparseUnit<Real> &unit = block.unit;
        if (block.l1 != path.l1 || unit.x != path.x || unit.channels != path.channels || (unit.present >> pair & 1) ||
            (unit.y[path.l2] >= 0 && unit.y[path.l2] != path.y))
            return false;
        for (int k = 0; k < MAX_PAIRS; ++k)
            if (direction_ == Direction::forward && (unit.present >> k & 1) &&
                overlap(unit.paths[k], pair_of(block.l1, k).l3, path))
                return false;
        return true;
    }

    void put(std::vector<Block> &blocks, const Path &path, double scale) const {
        int pair = 0;
        while (pair_of(int(path.l1), pair).l2 != path.l2 || pair_of(int(path.l1), pair).l3 != path.l3)
            ++pair;
        auto block = std::find_if(blocks.begin(), blocks.end(), [&](const Block &b) { return fits(b, path, pair); });
        if (block == blocks.end())
            block = blocks.insert(block, {int(path.l1), {int(path.x), int(path.channels), 0, {-1, -1, -1}, 0, {}}});
        block->unit.y[path.l2] = int(path.y);
        block->unit.present |= 1u << pair;
        block->unit.paths[pair] = {int(path.weights), int(path.out), int(path.out_stride), Real(scale)};
    }

    void mark_x(int64_t x, int64_t l1, int64_t channels, bool &fresh) {
        fresh = written_.mark(x, (2 * l1 + 1) * channels, launch_) && fresh;
    }
    void mark_out(int64_t out, int64_t stride, int64_t l3, int64_t channels, bool &fresh) {
        for (int64_t m3 = 0; m3 <= 2 * l3; ++m3)
            fresh = written_.mark(out + m3 * stride, channels, launch_) && fresh;
    }

    // Begin a launch where the last one, if it is of this kind, has one of the columns already; mark them.
    template <class Mark> bool begins(bool other_kind, const Mark &mark) {
        if (other_kind)
            ++launch_;
        bool fresh = true;
        mark(fresh);
        if (!fresh) {
            ++launch_;
            mark(fresh);
        }
        return other_kind || !fresh;
    }

    void pack_sparse(const Block &block, int width) {
        const SparseUnit<Real> &unit = block.unit;
        const bool begin = begins(sparse.empty() || sparse.back().l1 != block.l1, [&](bool &fresh) {
            if (direction_ == Direction::backward)
                mark_x(unit.x, block.l1, unit.channels, fresh);
            for (int k = 0; direction_ == Direction::forward && k < count_pairs(block.l1); ++k)
                if (unit.present >> k & 1)
                    mark_out(unit.paths[k].out, unit.paths[k].out_stride, pair_of(block.l1, k).l3, unit.channels,
                             fresh);
        });
        for (int channel = 0; channel < unit.channels; channel += width) {
            if ((channel == 0 && begin) || sparse.back().count == MAX_UNITS)
                sparse.push_back({block.l1, 0, {}});
            SparseLaunch<Real> &to = sparse.back();
            to.units.all[to.count] = unit;
            to.units.all[to.count++].channel = channel;
        }
    }

    void pack_dense(const Plan<Real> &plan, const Group &group) {
        for (size_t p = group.first_path; p < group.last_path; ++p) {
            const Path &path = plan.paths[p];
            const bool begin = begins(p == group.first_path, [&](bool &fresh) {
                if (direction_ == Direction::backward)
                    mark_x(path.x, path.l1, path.channels, fresh);
                else
                    mark_out(path.out, path.out_stride, path.l3, path.channels, fresh);
            });
            for (int channel = 0; channel < path.channels; channel += DENSE_WIDTH) {
                if ((channel == 0 && begin) || dense.back().count == MAX_UNITS)
                    begin_dense(plan, group);
                DenseLaunch<Real> &to = dense.back();
                to.units.all[to.count++] = {int(path.x),       int(path.channels), channel,
                                            int(path.weights), int(path.out),      int(path.out_stride)};
            }
        }
    }

    void begin_dense(const Plan<Real> &plan, const Group &group) {
        const Path &path = plan.paths[group.first_path];
        dense.push_back({0, {}});
        DenseUnits<Real> &to = dense.back().units;
        to.l1 = int(path.l1);
        to.l2 = int(path.l2);
        to.l3 = int(path.l3);
        to.y = int(path.y);
        to.count = int(group.last_term - group.first_term);
        TORCH_CHECK_VALUE(to.count <= MAX_TERMS, "a coupling may have at most ", MAX_TERMS, " coefficients; found ",
                          to.count);
        for (int k = 0; k < to.count; ++k) {
            const Term<Real> &term = plan.terms[group.first_term + size_t(k)];
            to.value[k] = term.value;
            to.term[k] = {uint8_t(term.entry - group.entry), uint8_t(term.harmonic - path.y)};
            to.by_harmonic[k] = uint8_t(k);
        }
        std::stable_sort(to.by_harmonic, to.by_harmonic + to.count,
                         [&](int a, int b) { return to.term[a].harmonic < to.term[b].harmonic; });
        for (int k = 0; k < to.count; ++k) {
            ++to.entry_first[to.term[k].entry + 1];
            ++to.harmonic_first[to.term[k].harmonic + 1];
        }
        for (size_t k = 1; k < std::size(to.entry_first); ++k)
            to.entry_first[k] = uint8_t(to.entry_first[k] + to.entry_first[k - 1]);
        for (size_t k = 1; k < std::size(to.harmonic_first); ++k)
            to.harmonic_first[k] = uint8_t(to.harmonic_first[k] + to.harmonic_first[k - 1]);
    }
};

} // namespace equistride
