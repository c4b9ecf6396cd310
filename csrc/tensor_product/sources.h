// What the convolution reads on the CPU: edges in the order of their receivers, and weights from a tensor or a table.
#pragma once
#include "tensor_product/kernels.h"
#include "tensor_product/tensor_product.h"

#include <algorithm>
#include <cmath>

namespace equistride {

template <class Real> class Buffer {
public:
    explicit Buffer(int64_t size) : lines_(size_t(size) * sizeof(Real) / sizeof(Line) + 1) {}
    Real *data() { return reinterpret_cast<Real *>(lines_.data()); }

private:
    struct alignas(64) Line {
        char bytes[64];
    };
    std::vector<Line> lines_;
};

struct Edges {
    const int64_t *receiver, *sender;
    int64_t count;
    std::vector<int64_t> first; // of each receiver, and the end

    Edges(const Tensor &edge_index, int64_t senders, int64_t receivers)
        : receiver(edge_index.const_data_ptr<int64_t>()), sender(receiver + edge_index.size(1)),
          count(edge_index.size(1)), first(size_t(receivers) + 1, 0) {
        for (int64_t e = 0; e < count; ++e) {
            const int64_t t = receiver[e], s = sender[e];
            TORCH_CHECK_INDEX(t >= 0 && t < receivers && s >= 0 && s < senders, "edge_index must name receivers below ",
                              receivers, " and senders below ", senders, "; found ", t, " and ", s, " at edge ", e);
            TORCH_CHECK_VALUE(e == 0 || receiver[e - 1] <= t, "edge_index must be sorted by receiver (row 0); found ",
                              t, " after ", receiver[e - 1], " at edge ", e,
                              "; sort the edges with edge_index[:, edge_index[0].argsort(stable=True)]");
            ++first[size_t(t) + 1];
        }
        for (size_t t = 0; t < size_t(receivers); ++t)
            first[t + 1] += first[t];
    }
};

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
        const double knot = std::min(std::max(std::floor(place), 0.0), last - 1), t = place - knot, u = 1 - t;
        const double scale = 1 / step;
        return {table + int64_t(knot) * width,
                width,
                {Real(u * u * u / 6), Real((4 + t * t * (3 * t - 6)) / 6), Real((4 + u * u * (3 * u - 6)) / 6),
                 Real(t * t * t / 6)},
                {Real(-0.5 * u * u * scale), Real((1.5 * t - 2) * t * scale), Real((2 - 1.5 * u) * u * scale),
                 Real(0.5 * t * t * scale)}};
    }
};

} // namespace equistride
