// The search on the CPU: bins, then the sorted neighbours of every atom as packed keys.
#pragma once
#include "neighbors/grid.h"
#include "neighbors/scan.h"
#include "threads.h"

#include <memory>
#include <vector>

namespace equistride {

// Memory that nothing fills on behalf of its owner.
template <class T> struct Buffer {
    std::unique_ptr<T[]> data;
    size_t size = 0;

    void reserve(size_t used, size_t wanted) {
        if (wanted <= size)
            return;
        size = std::max(wanted, size + size / 2);
        std::unique_ptr<T[]> grown(new T[size]);
        std::copy(data.get(), data.get() + used, grown.get());
        data = std::move(grown);
    }
};

struct Bins {
    Lattice lattice;
    Grid grid;
    ImageCode code;
    int64_t atoms;
    bool wrapped;                 // some atom lies outside the cell
    std::vector<int32_t> wraps;   // [N, 3], original order: wrapped = position + wraps @ rows
    std::vector<int32_t> start;   // [bins + 1]
    std::vector<int32_t> order;   // bin order -> original
    std::vector<double> position; // [N, 3], bin order, wrapped
    std::vector<float> x, y, z;   // bin order
    double middle[3];
    Band band;

    template <class Real> Bins(const Real *positions, int64_t atoms, const Lattice &lattice, double cutoff);
};

// The neighbours of atom i are keys[part[i]][begin[i] ... begin[i] + count[i]], sorted; a key is (sender << bits) |
// image.
template <class Key> struct Found {
    std::vector<Buffer<Key>> keys;
    std::vector<int32_t> part, count;
    std::vector<int64_t> begin;

    Found(const Bins &bins, double cutoff, const Threads &shared);
    const Key *row(int64_t i) const { return keys[part[i]].data.get() + begin[i]; }
};

} // namespace equistride
