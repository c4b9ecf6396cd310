// keep_momenta (momenta.h) on the GPU, in one launch of one block: it reads 100 bytes an atom four times, of which some
// 20 us are spent at 4,374 atoms, and nothing waits for the host, also where angular momentum is kept.
#include "model/cuda_sums.h"
#include "model/rigid_body.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>
#include <tuple>

namespace equistride {

namespace {

struct MomentaProblem {
    const double *positions, *velocities, *displacements, *after, *masses;
    int64_t atoms;
    double stride_fs;
    bool rotates;
    double *moved, *fast; // the stride that is kept
};

__global__ void __launch_bounds__(SUM_THREADS) keep_momenta_kernel(MomentaProblem in) {
    enum { MASS, BEFORE, MOVED = 4, AFTER = 7, PLACE = 10, ALL_SUMS = 13 };
    double sums[ALL_SUMS];
    sum_atoms(in.atoms, sums, [&](int64_t i, double (&to)[ALL_SUMS]) {
        const double m = in.masses[i];
        to[MASS] += m;
        for (int x = 0; x < 3; ++x) {
            to[BEFORE + x] += m * in.velocities[3 * i + x];
            to[MOVED + x] += m * in.displacements[3 * i + x];
            to[AFTER + x] += m * in.after[3 * i + x];
            to[PLACE + x] += m * in.positions[3 * i + x];
        }
    });
    const double total = sums[MASS];
    for (int64_t k = threadIdx.x; k < 3 * in.atoms; k += SUM_THREADS) {
        const int x = int(k % 3);
        const double drift = sums[BEFORE + x] / total;
        in.moved[k] = in.displacements[k] + (drift * in.stride_fs - sums[MOVED + x] / total);
        in.fast[k] = in.after[k] + (drift - sums[AFTER + x] / total);
    }
    if (!in.rotates)
        return;
    __syncthreads();
    // Spin of before, about the centre of before; and where the centre is after.
    double first[6];
    sum_atoms(in.atoms, first, [&](int64_t i, double (&to)[6]) {
        double arm[3], spin[3];
        for (int x = 0; x < 3; ++x) {
            arm[x] = in.positions[3 * i + x] - sums[PLACE + x] / total;
            to[3 + x] += in.masses[i] * (in.positions[3 * i + x] + in.moved[3 * i + x]);
        }
        cross(arm, in.velocities + 3 * i, spin);
        for (int x = 0; x < 3; ++x)
            to[x] += in.masses[i] * spin[x];
    });
    const auto arm_of = [&](int64_t i, double *arm) {
        for (int x = 0; x < 3; ++x)
            arm[x] = in.positions[3 * i + x] + in.moved[3 * i + x] - first[3 + x] / total;
    };
    double second[9]; // inertia, spin
    sum_atoms(in.atoms, second, [&](int64_t i, double (&to)[9]) {
        double arm[3], spin[3];
        arm_of(i, arm);
        add_inertia(in.masses[i], arm, to);
        cross(arm, in.fast + 3 * i, spin);
        for (int x = 0; x < 3; ++x)
            to[6 + x] += in.masses[i] * spin[x];
    });
    const double missing[3] = {first[0] - second[6], first[1] - second[7], first[2] - second[8]};
    double omega[3];
    RigidBody(second).angular_velocity(missing, omega);
    __syncthreads();
    for (int64_t i = threadIdx.x; i < in.atoms; i += SUM_THREADS) {
        double arm[3], turn[3];
        arm_of(i, arm);
        cross(omega, arm, turn);
        for (int x = 0; x < 3; ++x)
            in.fast[3 * i + x] += turn[x];
    }
}

std::tuple<at::Tensor, at::Tensor> keep_momenta_cuda(const at::Tensor &positions, const at::Tensor &velocities,
                                                     const at::Tensor &displacements, const at::Tensor &after,
                                                     const at::Tensor &masses, double stride_fs,
                                                     bool conserves_angular_momentum) {
    const c10::cuda::CUDAGuard guard(positions.device());
    const auto dense = [&](const at::Tensor &tensor) { return tensor.to(at::kDouble).contiguous(); };
    const at::Tensor r = dense(positions), v = dense(velocities), d = dense(displacements), w = dense(after),
                     m = dense(masses), moved = at::empty_like(r), fast = at::empty_like(r);
    if (r.size(0) > 0)
        launch(keep_momenta_kernel, 1, SUM_THREADS, c10::cuda::getCurrentCUDAStream(),
               MomentaProblem{r.const_data_ptr<double>(), v.const_data_ptr<double>(), d.const_data_ptr<double>(),
                              w.const_data_ptr<double>(), m.const_data_ptr<double>(), r.size(0), stride_fs,
                              conserves_angular_momentum, moved.mutable_data_ptr<double>(),
                              fast.mutable_data_ptr<double>()});
    return {moved, fast};
}

} // namespace

TORCH_LIBRARY_IMPL(equistride, CUDA, m) { m.impl("keep_momenta", keep_momenta_cuda); }

} // namespace equistride
