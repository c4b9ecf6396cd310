// The loops themselves, compiled once for each instruction set, with its vectors (EQUISTRIDE_VECTOR_BYTES) and the
// compiler's flags for it; see simd.h.
#include "simd.h"
#include "symmetric_contraction/kernels.h"

namespace equistride {

namespace {

// Rows of channels as vectors [row][atom].
template <class Real, int WIDTH> class Factors {
public:
    using Vec = Vector<Real>;
    const Channels<Real, WIDTH> lanes;

    INLINE Factors(const ContractionStep<Real> &step, int64_t channel, int part)
        : lanes{part}, step_(step), x_(reinterpret_cast<Vec *>(step.scratch)), channel_(channel) {
        for (int64_t i = 0; i < step.inputs; ++i)
            each<ATOMS>(EACH(b) { x_[i * ATOMS + b] = lanes.get(step.x[b] + i * step.channels + channel, 0); });
    }

    INLINE const Vec *operator[](int32_t input) const { return x_ + int64_t(input) * ATOMS; }
    INLINE Vec weight(const TermLeaf &leaf) const {
        return lanes.get(step_.table + leaf.row * step_.channels + channel_, 0);
    }
    // Times the product of the run's shared factors, without that of one depth.
    INLINE void times_prefix(const TermRun &run, Vec (&value)[ATOMS], int without = -1) const {
        for (int d = 0; d < run.depth; ++d)
            if (d != without) {
                const Vec *x = (*this)[run.prefix[d]];
                each<ATOMS>(EACH(b) { value[b] *= x[b]; });
            }
    }
    // The gradient of the output's row; none of an atom that is not there.
    INLINE void load_grad(int32_t out, Vec (&grad)[ATOMS]) const {
        each<ATOMS>(EACH(b) {
            grad[b] = b < step_.atoms ? lanes.get(step_.grad[b] + out * step_.channels + channel_, 0) : Vec{};
        });
    }
    INLINE void add(int64_t row, const Vec (&value)[ATOMS]) const {
        for (int b = 0; b < step_.atoms; ++b) {
            Real *const to = step_.out[b] + row * step_.channels + channel_;
            lanes.put(to, 0, lanes.get(to, 0) + value[b]);
        }
    }

private:
    const ContractionStep<Real> &step_;
    Vec *const x_;
    const int64_t channel_;
};

template <class Real, int WIDTH> INLINE void forward_lanes(const ContractionStep<Real> &step, int64_t channel, int n) {
    using Vec = Vector<Real>;
    const Factors<Real, WIDTH> x(step, channel, n);
    Vec sum[ATOMS] = {};
    for (int64_t r = 0; r < step.run_count; ++r) {
        const TermRun &run = step.runs[r];
        Vec part[ATOMS] = {};
        for (int32_t k = run.begin; k < run.end; ++k) {
            const Vec w = x.weight(step.leaves[k]), *factor = x[step.leaves[k].input];
            each<ATOMS>(EACH(b) { part[b] += w * factor[b]; });
        }
        x.times_prefix(run, part);
        each<ATOMS>(EACH(b) { sum[b] += part[b]; });
        if (r + 1 == step.run_count || step.runs[r + 1].out != run.out) {
            x.add(run.out, sum);
            each<ATOMS>(EACH(b) { sum[b] = Vec{}; });
        }
    }
}

template <class Real, int WIDTH> INLINE void backward_lanes(const ContractionStep<Real> &step, int64_t channel, int n) {
    using Vec = Vector<Real>;
    const Factors<Real, WIDTH> x(step, channel, n);
    Vec *const on_x = reinterpret_cast<Vec *>(step.scratch) + step.inputs * ATOMS;
    for (int64_t k = 0; k < step.inputs * ATOMS; ++k)
        on_x[k] = Vec{};
    Vec grad[ATOMS];
    for (int64_t r = 0; r < step.run_count; ++r) {
        const TermRun &run = step.runs[r];
        if (r == 0 || step.runs[r - 1].out != run.out)
            x.load_grad(run.out, grad);
        Vec outer[ATOMS], part[ATOMS] = {};
        each<ATOMS>(EACH(b) { outer[b] = grad[b]; });
        x.times_prefix(run, outer);
        for (int32_t k = run.begin; k < run.end; ++k) {
            const Vec w = x.weight(step.leaves[k]), *factor = x[step.leaves[k].input];
            Vec *const to = on_x + int64_t(step.leaves[k].input) * ATOMS;
            each<ATOMS>(EACH(b) {
                part[b] += w * factor[b];
                to[b] += w * outer[b];
            });
        }
        each<ATOMS>(EACH(b) { part[b] *= grad[b]; });
        for (int d = 0; d < run.depth; ++d) {
            Vec share[ATOMS];
            each<ATOMS>(EACH(b) { share[b] = part[b]; });
            x.times_prefix(run, share, d);
            Vec *const to = on_x + int64_t(run.prefix[d]) * ATOMS;
            each<ATOMS>(EACH(b) { to[b] += share[b]; });
        }
    }
    for (int64_t i = 0; i < step.inputs; ++i) {
        Vec row[ATOMS];
        each<ATOMS>(EACH(b) { row[b] = on_x[i * ATOMS + b]; });
        x.add(i, row);
    }
}

template <class Real, int WIDTH>
INLINE void backward_table_lanes(const ContractionStep<Real> &step, int64_t channel, int n) {
    using Vec = Vector<Real>;
    const Factors<Real, WIDTH> x(step, channel, n);
    for (int64_t r = 0; r < step.run_count; ++r) {
        const TermRun &run = step.runs[r];
        Vec outer[ATOMS];
        x.load_grad(run.out, outer);
        x.times_prefix(run, outer);
        for (int32_t k = run.begin; k < run.end; ++k) {
            Real *const to = step.grad_table + step.leaves[k].row * step.channels + channel;
            Vec sum = x.lanes.get(to, 0);
            const Vec *factor = x[step.leaves[k].input];
            each<ATOMS>(EACH(b) { sum += outer[b] * factor[b]; });
            x.lanes.put(to, 0, sum);
        }
    }
}

// A whole vector of channels, or the part of one that is left at the end.
#define EQUISTRIDE_LANES(name)                                                                                         \
    template <class Real> void name(const ContractionStep<Real> &step, int64_t channel) {                              \
        const int64_t left = step.channels - channel;                                                                  \
        left >= Simd<Real>::lanes ? name##_lanes<Real, 1>(step, channel, 0)                                            \
                                  : name##_lanes<Real, 0>(step, channel, int(left));                                   \
    }
EQUISTRIDE_LANES(forward)
EQUISTRIDE_LANES(backward)
EQUISTRIDE_LANES(backward_table)
#undef EQUISTRIDE_LANES

} // namespace

template <class Real, InstructionSet> const ContractionKernels<Real> &contraction_kernels() {
    static constexpr ContractionKernels<Real> all = {Simd<Real>::lanes, forward<Real>, backward<Real>,
                                                     backward_table<Real>};
    return all;
}
template const ContractionKernels<float> &contraction_kernels<float, InstructionSet::EQUISTRIDE_INSTRUCTION_SET>();
template const ContractionKernels<double> &contraction_kernels<double, InstructionSet::EQUISTRIDE_INSTRUCTION_SET>();

} // namespace equistride
