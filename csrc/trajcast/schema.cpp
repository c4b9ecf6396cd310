// The operators' names and types, and the layout of the weights.
#include "checks.h"
#include "edge_block/panels.h"
#include "frozen.h"
#include "trajcast/layer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

namespace equistride {

Tensor trajcast_layer_cpu(const TrajCastLayer &in, const LayerShape &shape);

namespace {

Tensor trajcast_pack(at::TensorList matrices) {
    TORCH_CHECK_VALUE(!matrices.empty(), "there are no matrices to pack");
    for (const Tensor &matrix : matrices) {
        TORCH_CHECK_VALUE(matrix.dim() == 2 && matrix.numel() > 0, "a matrix to pack must have shape [in, out]; found ",
                          matrix.sizes());
        check_real("a matrix to pack", matrix);
        check_like("a matrix to pack", matrix, "the first", matrices[0]);
    }
    const c10::AutoGradMode frozen(false);
    return in_panels(matrices.vec());
}

Tensor like_out(const TrajCastLayer &in, const LayerShape &shape) {
    return at::empty_symint({in.motion.sym_size(0), shape.out_width}, in.x.options());
}

template <auto FUNCTION>
Tensor layer_with(const Tensor &x, const Tensor &edge_index, const Tensor &lengths, const Tensor &bond_harmonics,
                  const Tensor &table, double start, double step, const Tensor &motion, const Tensor &harmonics,
                  const Tensor &species, const Tensor &weights, IntArrayRef message_paths,
                  ArrayRef<double> message_couplings, IntArrayRef motion_paths, ArrayRef<double> motion_couplings,
                  IntArrayRef sizes, ArrayRef<double> factors) {
    check_frozen("what a TrajCast layer in one operator reads",
                 {x, lengths, bond_harmonics, table, motion, harmonics, weights});
    const TrajCastLayer in{x,
                           edge_index,
                           lengths,
                           bond_harmonics,
                           table,
                           start,
                           step,
                           motion,
                           harmonics,
                           species,
                           weights,
                           message_paths,
                           message_couplings,
                           motion_paths,
                           motion_couplings,
                           sizes,
                           factors};
    return FUNCTION(in, LayerShape(in));
}

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    m.def("trajcast_pack(Tensor[] matrices) -> Tensor", trajcast_pack);
    m.def("trajcast_layer(Tensor x, Tensor edge_index, Tensor lengths, Tensor bond_harmonics, Tensor table, float "
          "start, float step, Tensor motion, Tensor harmonics, Tensor species, Tensor weights, int[] message_paths, "
          "float[] message_couplings, int[] motion_paths, float[] motion_couplings, int[] sizes, float[] factors) "
          "-> Tensor",
          {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(equistride, CPU, m) { m.impl("trajcast_layer", layer_with<trajcast_layer_cpu>); }
TORCH_LIBRARY_IMPL(equistride, Meta, m) { m.impl("trajcast_layer", layer_with<like_out>); }

} // namespace equistride
