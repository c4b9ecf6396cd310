// What bonds alone give: their lengths and envelopes, and what they add to the features that the first block reads.
//
//     bond_lengths   r = |v|, u(r / cutoff) = 1 - x^p ((p + 1)(p + 2) / 2 - p (p + 2) x + p (p + 1) / 2 x^2), 0 beyond
//     edge_degree    out[t] = scalars of t in the first row + sum over edges t <- s of scale u_e D_e^T radial_e
// where radial_e are the rows of order 0 in the bond's frame (arXiv 2302.03655), one for each degree.
#pragma once
#include "edge_block/edge_block.h"
#include "host_device.h"

namespace equistride {

template <class Real> struct Envelope {
    Real reach, p;
    int64_t exponent; // 0: none

    EQUISTRIDE_HD Real power(Real x, int64_t n) const {
        Real all = 1;
        for (; n > 0; --n)
            all *= x;
        return all;
    }
    EQUISTRIDE_HD Real value(Real r) const {
        const Real x = r / reach;
        if (exponent == 0)
            return 1;
        return x < 1 ? 1 - power(x, exponent) * ((p + 1) * (p + 2) / 2 - x * (p * (p + 2) - x * (p * (p + 1) / 2))) : 0;
    }
    EQUISTRIDE_HD Real slope(Real r) const {
        const Real x = r / reach;
        if (exponent == 0 || !(x < 1))
            return 0;
        return -p * (p + 1) * (p + 2) / 2 * power(x, exponent - 1) * (1 - x) * (1 - x) / reach;
    }
};

// All tensors but `edge_index` have the type of the scalars.
struct EdgeDegree {
    const Tensor &scalars;    // [N, channels]
    const Tensor &vectors;    // [E, 3]
    const Tensor &frames;     // what bond_frames gives for them
    const Tensor &envelope;   // [E]
    const Tensor &radial;     // [E, (l_max + 1) channels]
    const Tensor &edge_index; // [2, E] receivers, senders; sorted by receiver
    double scale;

    Shape shape() const; // throws where shapes, types or devices do not fit
};
using DegreeGradients = std::tuple<Tensor, Tensor, Tensor>; // to vectors, envelope, radial

std::tuple<Tensor, Tensor> bond_lengths_cpu(const Tensor &vectors, double cutoff, int64_t exponent);
Tensor bond_lengths_backward_cpu(const Tensor &on_lengths, const Tensor &on_envelope, const Tensor &vectors,
                                 double cutoff, int64_t exponent);
Tensor edge_degree_cpu(const EdgeDegree &in);
DegreeGradients edge_degree_backward_cpu(const Tensor &grad, const EdgeDegree &in);

// The arguments one by one.
template <auto FUNCTION>
Tensor degree_with(const Tensor &scalars, const Tensor &vectors, const Tensor &frames, const Tensor &envelope,
                   const Tensor &radial, const Tensor &edge_index, double scale) {
    return FUNCTION({scalars, vectors, frames, envelope, radial, edge_index, scale});
}
template <auto FUNCTION>
DegreeGradients degree_backward_with(const Tensor &grad, const Tensor &scalars, const Tensor &vectors,
                                     const Tensor &frames, const Tensor &envelope, const Tensor &radial,
                                     const Tensor &edge_index, double scale) {
    return FUNCTION(grad, {scalars, vectors, frames, envelope, radial, edge_index, scale});
}

template <auto LENGTHS, auto LENGTHS_BACKWARD, auto DEGREE, auto DEGREE_BACKWARD>
void implement_bonds(torch::Library &m) {
    m.impl("bond_lengths", LENGTHS);
    m.impl("bond_lengths_backward", LENGTHS_BACKWARD);
    m.impl("edge_degree", degree_with<DEGREE>);
    m.impl("edge_degree_backward", degree_backward_with<DEGREE_BACKWARD>);
}

// Check the arguments, without reading a tensor, and return memory for the results.
std::tuple<Tensor, Tensor> bond_lengths_any(const Tensor &vectors, double cutoff, int64_t exponent);
Tensor bond_lengths_backward_any(const Tensor &on_lengths, const Tensor &on_envelope, const Tensor &vectors,
                                 double cutoff, int64_t exponent);
Tensor edge_degree_any(const EdgeDegree &in);
DegreeGradients edge_degree_backward_any(const Tensor &grad, const EdgeDegree &in);

} // namespace equistride
