// What the convolution reads on the CPU: weights from a tensor or a table.
#pragma once
#include "edges.h"
#include "tensor_product/kernels.h"
#include "tensor_product/spline.h"
#include "tensor_product/tensor_product.h"

#include <algorithm>
#include <cmath>

namespace equistride {

// Where the weights of an edge come from: rows of a tensor.
template <class Real> struct StoredWeights {
    const Real *weights;
    int64_t width, count;

    const Real *row(int64_t e) const { return weights + e * width; }
    // From the rows of edges before `end` to rows worth fetching.
    int64_t ahead(int64_t end) const { return end + EDGE_BLOCK <= count ? EDGE_BLOCK * width : 0; }
};

// Or splines of its length.
template <class Real> struct TabulatedWeights {
    const Real *lengths, *table;
    int64_t width, rows;
    double start, step;

    int64_t ahead(int64_t) const { return 0; }
    SplineRow<Real> at(int64_t e) const {
        const double r = double(lengths[e]), last = double(rows - 3), place = (r - start) / step;
        // Rounding may put a length of float32 a little beyond either end.
        TORCH_CHECK_VALUE(place > -1e-3 && place < last + 1e-3,
                          "an edge is longer or shorter than the radial table; expected a length between ", start,
                          " and ", start + last * step, "; found ", r, " at edge ", e,
                          "; look at what moved the atoms there, or make the table for this range");
        const double knot = std::min(std::max(std::floor(place), 0.0), last - 1);
        SplineRow<Real> row{table + int64_t(knot) * width, width, {}, {}};
        cubic_basis(place - knot, 1 / step, row.basis, row.slope);
        return row;
    }
};

} // namespace equistride
