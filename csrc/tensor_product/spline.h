// Cubic B-splines with evenly spaced knots: values of the four that reach an interval, and their slopes as factors of
// the three differences between neighbouring coefficients, which are exact where those are close. Host and device.
#pragma once
#include "host_device.h"

namespace equistride {

// `t`: place in the interval, 0 to 1. `scale`: intervals per unit of length.
template <class Real> EQUISTRIDE_HD inline void cubic_basis(double t, double scale, Real *basis, Real *slope) {
    const double u = 1 - t;
    basis[0] = Real(u * u * u / 6);
    basis[1] = Real((4 + t * t * (3 * t - 6)) / 6);
    basis[2] = Real((4 + u * u * (3 * u - 6)) / 6);
    basis[3] = Real(t * t * t / 6);
    slope[0] = Real(0.5 * u * u * scale);
    slope[1] = Real((0.5 + t * u) * scale);
    slope[2] = Real(0.5 * t * t * scale);
}

} // namespace equistride
