// The norm of an atom's features on the GPU, by a warp; x(k) and the like stand for the numbers of its rows.
#pragma once
#include "atom_block/kernels.h"
#include "cuda_launch.h"

#include <cmath>

namespace equistride {

namespace {

// By one warp: body(row, place among the atom's numbers), for each number.
template <class Body> __device__ __forceinline__ void each_number(const AtomShape &shape, Body &&body) {
    const int channels = int(shape.channels);
    for (int row = 0; row < int(shape.size); ++row)
        for (int c = int(threadIdx.x) % WARP; c < channels; c += WARP)
            body(row, row * channels + c);
}

// Mean of the scalars, and what the rows are multiplied with.
template <class Real> struct Moments {
    Real mean, scale;

    template <class X>
    __device__ __forceinline__ Moments(const AtomShape &shape, const RowNorm<Real> &norm, const X &x) : mean(0) {
        for (int c = int(threadIdx.x) % WARP; c < int(shape.channels); c += WARP)
            mean += x(c);
        mean = sum_lanes(mean) / Real(shape.channels);
        Real square = 0;
        each_number(shape,
                    [&](int row, int k) { square += norm.balance[row] * centred(row, x(k)) * centred(row, x(k)); });
        scale = 1 / std::sqrt(sum_lanes(square) + norm.eps);
    }
    __device__ __forceinline__ Real centred(int row, Real value) const { return row == 0 ? value - mean : value; }
};

// put(place, the norm's number)
template <class Real, class X, class Put>
__device__ __forceinline__ void normalise(const AtomShape &shape, const RowNorm<Real> &norm, const X &x,
                                          const Put &put) {
    const Moments<Real> of(shape, norm, x);
    each_number(shape, [&](int row, int k) {
        put(k, of.centred(row, x(k)) * of.scale * norm.weight[k] + (row == 0 ? norm.bias[k] : Real(0)));
    });
}

// put(place, the gradient to x), from that to the norm's numbers, g. With y = s w x, s = (v + eps)^-1/2 and v = sum of
// b x^2: on x, s w g - s^3 b x (sum of w g x); the scalars' less its mean, in which x, being centred, has no part.
template <class Real, class X, class Grad, class Put>
__device__ __forceinline__ void normalise_back(const AtomShape &shape, const RowNorm<Real> &norm, const X &x,
                                               const Grad &grad, const Put &put) {
    const Moments<Real> of(shape, norm, x);
    Real along = 0, scalars = 0;
    each_number(shape, [&](int row, int k) {
        const Real weighted = norm.weight[k] * grad(k);
        along += weighted * of.centred(row, x(k));
        scalars += row == 0 ? weighted : Real(0);
    });
    const Real less = of.scale * of.scale * of.scale * sum_lanes(along),
               mean = sum_lanes(scalars) / Real(shape.channels);
    each_number(shape, [&](int row, int k) {
        const Real weighted = norm.weight[k] * grad(k) - (row == 0 ? mean : Real(0));
        put(k, of.scale * weighted - less * norm.balance[row] * of.centred(row, x(k)));
    });
}

// A warp an atom; `grad` null: forward.
template <class Real>
__global__ void norm_atoms(const AtomShape shape, const RowNorm<Real> norm, const Real *x, const Real *grad,
                           int64_t atoms, Real *out) {
    const int64_t atom = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP,
                  first = atom * shape.size * shape.channels;
    if (atom >= atoms)
        return;
    const auto of_x = [&](int k) { return x[first + k]; };
    const auto put = [&](int k, Real value) { out[first + k] = value; };
    if (grad == nullptr)
        normalise(shape, norm, of_x, put);
    else
        normalise_back(shape, norm, of_x, [&](int k) { return grad[first + k]; }, put);
}

} // namespace

} // namespace equistride
