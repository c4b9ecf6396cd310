#include "neighbors/search.h"

#include <algorithm>
#include <c10/util/Exception.h>
#include <limits>

namespace equistride {

namespace {

struct Row {
    int dv, dw, first, last;
};

std::vector<Row> rows_in_reach(const Grid &grid, double cutoff) {
    std::vector<Row> rows;
    const int v = grid.reach[grid.v], w = grid.reach[grid.w];
    for (int dw = -w; dw <= w; ++dw)
        for (int dv = -v; dv <= v; ++dv) {
            const RowSpan span = row_span(grid, cutoff, dv, dw);
            if (span.first <= span.last)
                rows.push_back({dv, dw, span.first, span.last});
        }
    return rows;
}

// The contiguous runs of atoms that the atoms of one bin look at.
class RunFinder {
public:
    RunFinder(const Bins &bins, double cutoff) : bins_(bins), rows_(rows_in_reach(bins.grid, cutoff)) {}

    // Returns the number of atoms in all runs.
    int64_t find(int along, int v, int w, std::vector<Run> &runs) const {
        const Grid &grid = bins_.grid;
        const Lattice &lattice = bins_.lattice;
        const int length = grid.bins[grid.run];
        int64_t atoms = 0;
        runs.clear();
        for (const Row &row : rows_) {
            int image[3];
            const int at_v = wrap_bin(grid, lattice, grid.v, v + row.dv, image),
                      at_w = wrap_bin(grid, lattice, grid.w, w + row.dw, image);
            if (at_v < 0 || at_w < 0)
                continue;
            const int32_t *start = bins_.start.data() + bin_index(grid, 0, at_v, at_w);
            int first = along + row.first, last = along + row.last;
            if (!lattice.periodic[grid.run]) {
                first = std::max(first, 0);
                last = std::min(last, length - 1);
            }
            while (first <= last) {
                image[grid.run] = floor_div(first, length);
                const int base = image[grid.run] * length, stop = std::min(last, base + length - 1);
                const int32_t begin = start[first - base], end = start[stop - base + 1];
                first = stop + 1;
                if (begin == end)
                    continue;
                Run run{begin, end, bins_.code.pack(image[0], image[1], image[2]), {}};
                for (int x = 0; x < 3; ++x)
                    run.shift[x] = image_component(lattice, image[0], image[1], image[2], x);
                runs.push_back(run);
                atoms += end - begin;
            }
        }
        return atoms;
    }

private:
    const Bins &bins_;
    std::vector<Row> rows_;
};

} // namespace

template <class Real>
Bins::Bins(const Real *positions, int64_t atoms, const Lattice &lattice, double cutoff)
    : lattice(lattice), grid(), code(grid), atoms(atoms), wrapped(false), wraps(size_t(3 * atoms)) {
    std::vector<double> fractional(size_t(3 * atoms)), folded(size_t(3 * atoms));
    double low[3], high[3], least[3], most[3];
    std::fill_n(low, 3, std::numeric_limits<double>::max());
    std::fill_n(least, 3, std::numeric_limits<double>::max());
    std::fill_n(high, 3, std::numeric_limits<double>::lowest());
    std::fill_n(most, 3, std::numeric_limits<double>::lowest());
    for (int64_t i = 0; i < atoms; ++i) {
        const double r[3] = {double(positions[3 * i]), double(positions[3 * i + 1]), double(positions[3 * i + 2])};
        int32_t *wrap = wraps.data() + 3 * i;
        for (int k = 0; k < 3; ++k) {
            double f = r[0] * lattice.inverse[0][k] + r[1] * lattice.inverse[1][k] + r[2] * lattice.inverse[2][k];
            TORCH_CHECK_VALUE(std::fabs(f) < 1e9, "positions must be finite and within 1e9 cells of the origin; found ",
                              r[0], ", ", r[1], ", ", r[2], " for atom ", i, "; look at what moved it there");
            if (lattice.periodic[k] && (f < 0 || f >= 1)) {
                const double cells = std::floor(f);
                wrap[k] = int32_t(-cells);
                f -= cells;
                wrapped = true;
            }
            fractional[size_t(3 * i + k)] = f;
            low[k] = std::min(low[k], f);
            high[k] = std::max(high[k], f);
        }
        for (int x = 0; x < 3; ++x) {
            const double at = r[x] + image_component(lattice, wrap[0], wrap[1], wrap[2], x);
            folded[size_t(3 * i + x)] = at;
            least[x] = std::min(least[x], at);
            most[x] = std::max(most[x], at);
        }
    }
    if (atoms == 0)
        std::fill_n(low, 3, 0.0), std::fill_n(high, 3, 0.0), std::fill_n(least, 3, 0.0), std::fill_n(most, 3, 0.0);
    grid = choose_grid(lattice, cutoff, low, high, double(atoms), 64);
    code = ImageCode(grid);
    TORCH_CHECK_VALUE(code.bits <= IMAGE_BITS, "the cutoff reaches over too many periodic images; found ",
                      2 * grid.images[0] + 1, " x ", 2 * grid.images[1] + 1, " x ", 2 * grid.images[2] + 1,
                      "; use a smaller cutoff or a larger cell");

    double reach = 0;
    for (int x = 0; x < 3; ++x) {
        middle[x] = 0.5 * (least[x] + most[x]);
        reach = std::max(reach, most[x] - middle[x]);
    }
    band = make_band(cutoff, reach);

    const size_t bins = size_t(grid.bins[0]) * size_t(grid.bins[1]) * size_t(grid.bins[2]);
    start.assign(bins + 1, 0);
    std::vector<int32_t> home(static_cast<size_t>(atoms));
    for (int64_t i = 0; i < atoms; ++i) {
        int at[3];
        for (int k = 0; k < 3; ++k)
            at[k] = bin_along(grid, k, fractional[size_t(3 * i + k)]);
        home[size_t(i)] = bin_index(grid, at[grid.run], at[grid.v], at[grid.w]);
        ++start[size_t(home[size_t(i)]) + 1];
    }
    for (size_t b = 0; b < bins; ++b)
        start[b + 1] += start[b];
    order.resize(size_t(atoms));
    position.resize(size_t(3 * atoms));
    for (std::vector<float> *axis : {&x, &y, &z})
        axis->resize(size_t(atoms + LANES));
    std::vector<int32_t> next(start.begin(), start.end() - 1);
    for (int64_t i = 0; i < atoms; ++i) {
        const size_t p = size_t(next[size_t(home[size_t(i)])]++);
        const double *at = folded.data() + 3 * i;
        order[p] = int32_t(i);
        std::copy(at, at + 3, position.data() + 3 * p);
        x[p] = float(at[0] - middle[0]);
        y[p] = float(at[1] - middle[1]);
        z[p] = float(at[2] - middle[2]);
    }
}

template Bins::Bins(const float *, int64_t, const Lattice &, double);
template Bins::Bins(const double *, int64_t, const Lattice &, double);

template <class Key>
Found<Key>::Found(const Bins &bins, double cutoff, const Threads &shared)
    : part(size_t(bins.atoms)), count(size_t(bins.atoms)), begin(size_t(bins.atoms)) {
    const Grid &grid = bins.grid;
    const RunFinder finder(bins, cutoff);
    const Scan &scan = choose_scan();
    std::vector<Key> key(size_t(bins.atoms + LANES));
    for (int64_t p = 0; p < bins.atoms; ++p)
        key[size_t(p)] = Key(bins.order[size_t(p)]) << bins.code.bits;
    Atoms<Key> atoms{bins.x.data(), bins.y.data(), bins.z.data(), bins.position.data(), key.data(), {}};
    std::copy_n(bins.middle, 3, atoms.middle);
    const Key home = Key(bins.code.pack(0, 0, 0));

    // One thread takes whole parts, and no result depends on which.
    const int64_t rows = int64_t(grid.bins[grid.v]) * grid.bins[grid.w];
    const int64_t threads = shared.count(), parts = threads == 1 ? 1 : std::min<int64_t>(rows, 4 * threads);
    keys.resize(size_t(parts));
    shared.share(0, parts, parts, [&](int64_t part_begin, int64_t part_end) {
        std::vector<Run> runs;
        Buffer<Key> loose;
        for (int64_t number = part_begin; number < part_end; ++number) {
            Buffer<Key> &sorted = keys[size_t(number)];
            size_t used = 0;
            for (int64_t row = rows * number / parts; row < rows * (number + 1) / parts; ++row) {
                const int v = int(row % grid.bins[grid.v]), w = int(row / grid.bins[grid.v]);
                for (int along = 0; along < grid.bins[grid.run]; ++along) {
                    const int bin = bin_index(grid, along, v, w);
                    if (bins.start[size_t(bin)] == bins.start[size_t(bin) + 1])
                        continue;
                    const int64_t candidates = finder.find(along, v, w, runs);
                    TORCH_CHECK_VALUE(candidates < (int64_t(1) << 30),
                                      "an atom has too many neighbours; expected fewer "
                                      "than 2^30 candidates; found ",
                                      candidates, "; use a smaller cutoff");
                    loose.reserve(0, size_t(candidates) + LANES);
                    for (int p = bins.start[size_t(bin)]; p < bins.start[size_t(bin) + 1]; ++p) {
                        const Key self = key[size_t(p)] | home;
                        const size_t i = size_t(bins.order[size_t(p)]);
                        int n;
                        if constexpr (sizeof(Key) == 4) {
                            n = scan.gather(atoms, runs.data(), int(runs.size()), p, self, bins.band, loose.data.get());
                            sorted.reserve(used, used + size_t(n));
                            scan.sort(loose.data.get(), n, sorted.data.get() + used);
                        } else {
                            n = gather_portable(atoms, runs.data(), int(runs.size()), p, self, bins.band,
                                                loose.data.get());
                            sorted.reserve(used, used + size_t(n));
                            std::sort(loose.data.get(), loose.data.get() + n);
                            std::copy_n(loose.data.get(), n, sorted.data.get() + used);
                        }
                        part[i] = int32_t(number);
                        begin[i] = int64_t(used);
                        count[i] = n;
                        used += size_t(n);
                    }
                }
            }
        }
    });
}

template struct Found<int32_t>;
template struct Found<int64_t>;

} // namespace equistride
