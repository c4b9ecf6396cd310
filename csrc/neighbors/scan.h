// The inner loops of the search: pick the atoms of a few contiguous runs that lie within the cutoff, and sort what was
// found. One portable version, one for AVX2, one for AVX-512; all three give the same list bit for bit.
//
// Distances are taken in float32. Where one falls within the rounding error of the cutoff (`Band`), the pair is decided
// in float64 by `inside`, which every version shares; so the float32 work never decides anything that is close.
#pragma once
#include "neighbors/grid.h"
#include <cstdint>

namespace equistride {

constexpr int LANES = 32; // every array below may be read this far past its end

struct Run {
    int32_t begin, end; // atoms, in bin order
    uint64_t code;      // number of the periodic image
    double shift[3];    // its translation
};

// In bin order.
template <class Key> struct Atoms {
    const float *x, *y, *z; // about the middle of the structure
    const double *position; // [N, 3], wrapped into the cell
    const Key *key;         // original index, shifted left to leave room for the image
    double middle[3];
};

bool inside(const double *receiver, const double *sender, const double *shift, double cutoff2);

// Write the keys of the neighbours of atom `self` (a place in bin order), in the order met. Returns how many.
// `found` needs room for every atom of the runs and LANES more.
template <class Key>
int gather_portable(const Atoms<Key> &atoms, const Run *runs, int count, int self, Key self_key, const Band &band,
                    Key *found);

struct Scan {
    int (*gather)(const Atoms<int32_t> &, const Run *, int, int, int32_t, const Band &, int32_t *);
    void (*sort)(int32_t *keys, int count, int32_t *sorted); // keys may be overwritten up to LANES past its end
};

// For 32-bit keys; structures with very many atoms or images need 64-bit keys and gather_portable.
const Scan &choose_scan();

} // namespace equistride
