// The loops themselves, compiled once for each instruction set; see simd.h.
#include "trajcast/kernels.h"
#include "vectors.h"

namespace equistride {

namespace {

template <class Real> void silu(Real *x, int64_t count) {
    over_vectors<Real>(
        count, VECTORS(c, lanes) {
            const Vector<Real> value = lanes.get(x + c, 0);
            lanes.put(x + c, 0, value * sigmoid<Real>(value));
        });
}

template <class Real>
void gate(const Output *outputs, int64_t count, int64_t channels, const GateFactors<Real> &factors, const Real *open,
          const Real *old, Real *out) {
    for (const Output *output = outputs; output != outputs + count; ++output)
        over_vectors<Real>(
            channels, VECTORS(c, lanes) {
                const auto add = [&](int64_t row, Vector<Real> value) __attribute__((always_inline)) {
                    if (output->old >= 0)
                        value += lanes.get(old + output->old + row * channels + c, 0);
                    lanes.put(out + output->to + row * channels + c, 0, value);
                };
                const Vector<Real> first = lanes.get(open + output->from + c, 0);
                if (output->opening == Opening::tanh) { // as 2 sigmoid(2 x) - 1
                    add(0, factors.tanh * (2 * sigmoid<Real>(2 * first) - 1));
                } else if (output->opening == Opening::silu) {
                    add(0, factors.silu * first * sigmoid<Real>(first));
                } else {
                    const Vector<Real> z = lanes.get(open + output->gate + c, 0),
                                       factor = factors.silu * z * sigmoid<Real>(z);
                    for (int64_t row = 0; row < output->rows; ++row)
                        add(row, factor * lanes.get(open + output->from + row * channels + c, 0));
                }
            });
}

} // namespace

template <class Real, InstructionSet> const TrajCastKernels<Real> &trajcast_kernels() {
    static constexpr TrajCastKernels<Real> all = {silu<Real>, gate<Real>};
    return all;
}
template const TrajCastKernels<float> &trajcast_kernels<float, InstructionSet::EQUISTRIDE_INSTRUCTION_SET>();
template const TrajCastKernels<double> &trajcast_kernels<double, InstructionSet::EQUISTRIDE_INSTRUCTION_SET>();

} // namespace equistride
