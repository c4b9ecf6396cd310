// Sizes of a block, and the checks of the operators' arguments that need no look into a tensor.
#include "checks.h"
#include "edge_block/edge_block.h"
#include "edge_block/panels.h"

#include <algorithm>
#include <cmath>

namespace equistride {

Shape::Shape(int64_t l, int64_t m, int64_t channels, int64_t hidden, bool mirror)
    : l_max(int(l)), m_max(int(m)), channels(channels), hidden(hidden), mirror(mirror) {
    TORCH_CHECK_VALUE(l >= 0 && l <= MAX_L && m >= 0 && m <= l, "l_max must lie between 0 and ", MAX_L,
                      " and m_max between 0 and l_max; found ", l, " and ", m);
    TORCH_CHECK_VALUE(channels > 0 && hidden > 0 && channels <= MOST_CHANNELS && hidden <= MOST_CHANNELS,
                      "channels and hidden_channels must be above 0 and at most ", MOST_CHANNELS, "; found ", channels,
                      " and ", hidden);
    for (auto &degree : row)
        for (int &place : degree)
            place = -1;
    int weight_rows = 0;
    for (int order = 0; order <= m_max; ++order) {
        degrees[order] = l_max + 1 - order;
        first[order] = rows;
        first_weight[order] = weight_rows;
        for (int degree = order; degree <= l_max; ++degree) {
            row[degree][degree + order] = rows + degree - order;
            if (order > 0)
                row[degree][degree - order] = rows + degrees[order] + degree - order;
        }
        rows += (order > 0 ? 2 : 1) * degrees[order];
        weight_rows += degrees[order];
    }
    for (int degree = 1; degree <= l_max; ++degree) {
        frame[degree] = frame_size;
        frame_size += (2 * degree + 1) * (2 * degree + 1);
    }
    size = (l_max + 1) * (l_max + 1);
    gates = l_max * hidden;
    inner = gates + rows * hidden;
    state = inner + rows * channels;
    scaled = int64_t(rows) * 2 * channels;
    weights = int64_t(weight_rows) * 2 * channels;
}

Shape EdgeBlock::shape() const {
    TORCH_CHECK_VALUE(x.dim() == 3, "x must have shape [N, (l_max + 1)^2, channels]; found ", x.sym_sizes());
    return {l_max, m_max, x.sym_size(2).guard_int(__FILE__, __LINE__), hidden_channels, mirror};
}

namespace {

void check_rows(const char *name, const Tensor &tensor, const Tensor &x, const c10::SymInt &rows, int64_t columns) {
    check_like(name, tensor, "x", x);
    TORCH_CHECK_VALUE(tensor.dim() == 2 && tensor.sym_size(0) == rows && tensor.sym_size(1) == columns, name,
                      " must have one row an edge, [", rows, ", ", columns, "]; found ", tensor.sym_sizes());
}

} // namespace

int64_t packed_size(const Shape &shape, int64_t radial_channels) {
    const int64_t in = 2 * shape.channels, mid = shape.hidden, out = shape.channels;
    const auto both = [](int64_t rows, int64_t columns) { return rows * padded(columns) + columns * padded(rows); };
    int64_t sum = both(radial_channels, shape.weights) + padded(shape.weights);
    for (int m = 0; m <= shape.m_max; ++m) {
        const int64_t n = shape.degrees[m], gates = m == 0 ? shape.gates : 0;
        const int64_t terms = both(n * in, gates + n * mid) + both(n * mid, n * out);
        sum += m == 0 ? terms + padded(gates + n * mid) + padded(n * out) : (shape.mirror ? 1 : 3) * terms;
    }
    return sum;
}

c10::SymInt kept_edges(const Shape &shape, const Tensor &x, const c10::SymInt &edges, int64_t keep) {
    return edges.min(std::max<int64_t>(keep, 0) / (shape.state * int64_t(x.element_size())));
}

void check_bonds(const Tensor &vectors, int64_t l_max) {
    check_real("vectors", vectors);
    TORCH_CHECK_VALUE(vectors.dim() == 2 && vectors.sym_size(1) == 3, "vectors must have shape [E, 3]; found ",
                      vectors.sym_sizes());
    TORCH_CHECK_VALUE(l_max >= 0 && l_max <= MAX_L, "l_max must lie between 0 and ", MAX_L, "; found ", l_max);
}

void check_block(const EdgeBlock &in, const Shape &shape) {
    check_real("x", in.x);
    TORCH_CHECK_VALUE(in.x.sym_size(1) == shape.size, "x must have (l_max + 1)^2 = ", shape.size,
                      " rows an atom; found ", in.x.sym_sizes());
    check_edge_index(in.edge_index, "x", in.x);
    const c10::SymInt edges = in.edge_index.sym_size(1);
    check_rows("vectors", in.vectors, in.x, edges, 3);
    check_rows("frames", in.frames, in.x, edges, shape.frame_size);
    check_like("envelope", in.envelope, "x", in.x);
    TORCH_CHECK_VALUE(in.envelope.dim() == 1 && in.envelope.sym_size(0) == edges,
                      "envelope must hold one number an edge, [", edges, "]; found ", in.envelope.sym_sizes());
    TORCH_CHECK_VALUE(in.hidden.dim() == 2, "hidden must have shape [E, channels]; found ", in.hidden.sym_sizes());
    const int64_t radial = in.hidden.sym_size(1).guard_int(__FILE__, __LINE__);
    check_rows("hidden", in.hidden, in.x, edges, radial);
    check_like("weights", in.weights, "x", in.x);
    const int64_t expected = packed_size(shape, radial);
    TORCH_CHECK_VALUE(in.weights.dim() == 1 && in.weights.sym_size(0) == expected, "weights must hold ", expected,
                      " numbers for these sizes; found ", in.weights.sym_sizes(),
                      "; pack them with equistride.nn.edge_block");
}

void check_block_grad(const Tensor &grad, const EdgeBlock &in, const Tensor &kept, const Shape &shape) {
    check_like("grad", grad, "x", in.x);
    TORCH_CHECK_VALUE(grad.sym_sizes() == in.x.sym_sizes(), "grad must have the shape of x, ", in.x.sym_sizes(),
                      "; found ", grad.sym_sizes());
    check_like("kept", kept, "x", in.x);
    TORCH_CHECK_VALUE(kept.dim() == 2 && kept.sym_size(1) == shape.state &&
                          kept.sym_size(0) <= in.edge_index.sym_size(1),
                      "kept must be what edge_block returned for these edges; found ", kept.sym_sizes());
}

void check_splines(const RadialSplines &in) {
    check_real("lengths", in.lengths);
    TORCH_CHECK_VALUE(in.lengths.dim() == 1, "lengths must have shape [E]; found ", in.lengths.sym_sizes());
    TORCH_CHECK_TYPE(in.pair.scalar_type() == at::kLong, "pair must be int64; found ", in.pair.scalar_type());
    TORCH_CHECK_VALUE(in.pair.sym_sizes() == in.lengths.sym_sizes(), "pair must have one number an edge, ",
                      in.lengths.sym_sizes(), "; found ", in.pair.sym_sizes());
    check_like("tables", in.tables, "lengths", in.lengths);
    TORCH_CHECK_VALUE(in.tables.dim() == 4 && in.tables.sym_size(1) >= 1 && in.tables.sym_size(2) >= 2,
                      "tables must have shape [pairs, intervals, terms >= 2, columns]; found ", in.tables.sym_sizes());
    TORCH_CHECK_VALUE(std::isfinite(in.start) && std::isfinite(in.step) && in.step > 0,
                      "the tables need a finite start and a step above 0; found ", in.start, " and ", in.step);
}

void check_splines_grad(const Tensor &grad, const RadialSplines &in) {
    check_like("grad", grad, "lengths", in.lengths);
    TORCH_CHECK_VALUE(grad.dim() == 2 && grad.sym_size(0) == in.lengths.sym_size(0) &&
                          grad.sym_size(1) == in.tables.sym_size(3),
                      "grad must have one row an edge and the columns of the tables; found ", grad.sym_sizes());
}

} // namespace equistride
