// Radial splines on the CPU: each edge reads the rows of its interval.
#include "edge_block/edge_block.h"
#include "threads.h"

#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <algorithm>
#include <cmath>

namespace equistride {

namespace {

// Calls call(kernels, e, polynomial, t) for all edges; beyond the ends the first and the last polynomial go on.
template <class F> void over_edges(const RadialSplines &in, F &&call) {
    const Tensor lengths = in.lengths.contiguous(), pair = in.pair.contiguous(), tables = in.tables.contiguous();
    const int64_t kinds = tables.size(0), intervals = tables.size(1), terms = tables.size(2), width = tables.size(3);
    const Threads threads(double(lengths.size(0) * terms * width) * MOVE);
    AT_DISPATCH_FLOATING_TYPES(lengths.scalar_type(), "radial_splines", [&] {
        const scalar_t *r = lengths.const_data_ptr<scalar_t>(), *table = tables.const_data_ptr<scalar_t>();
        const int64_t *kind = pair.const_data_ptr<int64_t>();
        const EdgeKernels<scalar_t> &kernels = choose_edge_kernels<scalar_t>();
        threads.share(0, lengths.size(0), [&](int64_t begin, int64_t end) {
            for (int64_t e = begin; e < end; ++e) {
                TORCH_CHECK_INDEX(kind[e] >= 0 && kind[e] < kinds, "pair must name tables below ", kinds, "; found ",
                                  kind[e], " at edge ", e);
                const double place = (double(r[e]) - in.start) / in.step,
                             knot = place >= 0 ? std::min(std::floor(place), double(intervals - 1)) : 0;
                const scalar_t *rows = table + (kind[e] * intervals + int64_t(knot)) * terms * width;
                call(kernels, e, Polynomial<scalar_t>{rows, terms, width}, scalar_t(place - knot));
            }
        });
    });
}

} // namespace

Tensor radial_splines_cpu(const RadialSplines &in) {
    check_splines(in);
    const int64_t width = in.tables.size(3);
    const Tensor out = at::empty({in.lengths.size(0), width}, in.lengths.options());
    over_edges(in, [&]<class Real>(const EdgeKernels<Real> &kernels, int64_t e, const Polynomial<Real> &at, Real t) {
        kernels.polynomial(at, t, out.mutable_data_ptr<Real>() + e * width);
    });
    return out;
}

Tensor radial_splines_backward_cpu(const Tensor &grad, const RadialSplines &in) {
    check_splines(in);
    check_splines_grad(grad, in);
    const int64_t width = in.tables.size(3);
    const Tensor dense = grad.contiguous(), out = at::empty({in.lengths.size(0)}, in.lengths.options());
    over_edges(in, [&]<class Real>(const EdgeKernels<Real> &kernels, int64_t e, const Polynomial<Real> &at, Real t) {
        out.mutable_data_ptr<Real>()[e] =
            kernels.slope(at, t, dense.const_data_ptr<Real>() + e * width) / Real(in.step);
    });
    return out;
}

} // namespace equistride
