// Where the matrices of a block lie in the operators' `weights`, as atom_block_pack lays them: each as [panels of PANEL
// columns, rows, PANEL], with zeros beyond its last column.
#pragma once
#include "atom_block/kernels.h"
#include "edge_block/panels.h"
#include "host_device.h"

#include <utility>

namespace equistride {

// One linear map of the channels of each degree. In the first row, gates lie before the channels that go in or come
// out.
template <class Real> struct AtomLayer {
    const Real *matrices = nullptr, *bias = nullptr; // of all degrees; of the first row, null: none
    int64_t in = 0, out = 0, gates_in = 0, gates_out = 0;

    EQUISTRIDE_HD int64_t place(int64_t l) const { // where the matrices of a degree begin
        return l == 0 ? 0 : (in + gates_in) * padded(out + gates_out) + (l - 1) * in * padded(out);
    }
    EQUISTRIDE_HD const Real *matrix(int64_t l) const { return matrices + place(l); }
};

template <class Real> struct AtomWeights {
    AtomLayer<Real> up, down, up_back, down_back;
    RowNorm<Real> norm;

    // Read off one after the other.
    AtomWeights(const AtomShape &shape, const Real *packed, double eps) {
        const int64_t c = shape.channels, h = shape.hidden, gates = shape.gates;
        const auto take = [&packed](int64_t count) { return std::exchange(packed, packed + count); };
        const auto layer = [&](AtomLayer<Real> made, bool bias) {
            made.matrices = take(made.place(shape.l_max + 1));
            if (bias)
                made.bias = take(padded(made.out + made.gates_out));
            return made;
        };
        up = layer({.in = c, .out = h, .gates_out = gates}, true);
        down = layer({.in = h, .out = c}, true);
        up_back = layer({.in = h, .out = c, .gates_in = gates}, false);
        down_back = layer({.in = c, .out = h}, false);
        const Real *const weight = take(shape.size * c), *const bias = take(c);
        norm = {weight, bias, packed, Real(eps)};
    }
};

} // namespace equistride
