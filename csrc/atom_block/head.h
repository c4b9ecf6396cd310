// Atomic energies of features, for a network of which that is the end.
#pragma once
#include "atom_block/kernels.h"

#include <ATen/core/Tensor.h>

namespace equistride {

using at::Tensor;

struct EnergyHead {
    const Tensor &x;       // [N, (l_max + 1)^2, channels]
    const Tensor &weights; // as energy_head_pack packs them
    int64_t hidden_channels;
    double eps;
};
Tensor energy_head_cpu(const EnergyHead &in); // [N]
Tensor energy_head_backward_cpu(const Tensor &grad, const EnergyHead &in);

} // namespace equistride
