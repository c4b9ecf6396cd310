// Radial splines on the CPU: each edge reads the four rows of its interval.
#include "edge_block/edge_block.h"
#include "tensor_product/kernels.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <algorithm>
#include <cmath>

namespace equistride {

namespace {

constexpr int64_t GRAIN = 256; // edges

// The cubic of the interval that holds r; beyond the ends the first and the last go on.
template <class Real>
SplineRow<Real> cubic(const Real *table, int64_t intervals, int64_t width, double r, double start, double step) {
    const double place = (r - start) / step, scale = 1 / step;
    const double knot = place >= 0 ? std::min(std::floor(place), double(intervals - 1)) : 0, t = place - knot;
    return {table + int64_t(knot) * 4 * width,
            width,
            {1, Real(t), Real(t * t), Real(t * t * t)},
            {0, Real(scale), Real(2 * t * scale), Real(3 * t * t * scale)}};
}

template <class F> void over_edges(const RadialSplines &in, F &&call) {
    const Tensor lengths = in.lengths.contiguous(), pair = in.pair.contiguous(), tables = in.tables.contiguous();
    const int64_t kinds = tables.size(0), intervals = tables.size(1), width = tables.size(3);
    AT_DISPATCH_FLOATING_TYPES(lengths.scalar_type(), "radial_splines", [&] {
        const scalar_t *r = lengths.const_data_ptr<scalar_t>(), *table = tables.const_data_ptr<scalar_t>();
        const int64_t *kind = pair.const_data_ptr<int64_t>();
        const Kernels<scalar_t> &kernels = choose_kernels<scalar_t>();
        at::parallel_for(0, lengths.size(0), GRAIN, [&](int64_t begin, int64_t end) {
            for (int64_t e = begin; e < end; ++e) {
                TORCH_CHECK_INDEX(kind[e] >= 0 && kind[e] < kinds, "pair must name tables below ", kinds, "; found ",
                                  kind[e], " at edge ", e);
                call(kernels, e,
                     cubic(table + kind[e] * intervals * 4 * width, intervals, width, double(r[e]), in.start, in.step));
            }
        });
    });
}

} // namespace

Tensor radial_splines_cpu(const RadialSplines &in) {
    check_splines(in);
    const int64_t width = in.tables.size(3);
    const Tensor out = at::empty({in.lengths.size(0), width}, in.lengths.options());
    over_edges(in, [&]<class Real>(const Kernels<Real> &kernels, int64_t e, const SplineRow<Real> &at) {
        kernels.spline(at, 0, width, out.mutable_data_ptr<Real>() + e * width);
    });
    return out;
}

Tensor radial_splines_backward_cpu(const Tensor &grad, const RadialSplines &in) {
    check_splines(in);
    check_splines_grad(grad, in);
    const int64_t width = in.tables.size(3);
    const Tensor dense = grad.contiguous(), out = at::empty({in.lengths.size(0)}, in.lengths.options());
    over_edges(in, [&]<class Real>(const Kernels<Real> &kernels, int64_t e, const SplineRow<Real> &at) {
        out.mutable_data_ptr<Real>()[e] = kernels.spline_slope(at, width, dense.const_data_ptr<Real>() + e * width);
    });
    return out;
}

} // namespace equistride
