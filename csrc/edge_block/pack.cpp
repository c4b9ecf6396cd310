// The matrices of a block in the order and the layout in which the kernels read them: made when a model is loaded, so
// that files know nothing of it.
#include "edge_block/edge_block.h"
#include "edge_block/panels.h"
#include "packing.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

namespace equistride {

Tensor in_panels(const std::vector<Tensor> &matrices) {
    int64_t size = 0;
    for (const Tensor &matrix : matrices)
        size += matrix.size(0) * padded(matrix.size(1));
    Tensor packed = at::empty({size}, matrices.front().options());
    int64_t from = 0;
    for (const Tensor &matrix : matrices) {
        const int64_t k = matrix.size(0), n = matrix.size(1), whole = n / PANEL * PANEL;
        const Tensor to = packed.narrow(0, from, k * padded(n)).view({-1, k, PANEL});
        from += to.numel();
        to.narrow(0, 0, n / PANEL).copy_(matrix.narrow(1, 0, whole).unflatten(1, {n / PANEL, PANEL}).transpose(0, 1));
        if (whole < n) {
            const Tensor last = to.select(0, n / PANEL).zero_();
            last.narrow(1, 0, n - whole).copy_(matrix.narrow(1, whole, n - whole));
        }
    }
    return packed;
}

namespace {

using Matrices = std::vector<Tensor>;

// The matrices of an order m > 0, to be multiplied from the right; three make a complex product.
Matrices of_order(const Tensor &weight, bool mirror, bool transposed) {
    if (mirror)
        return {transposed ? weight : weight.t()};
    const auto halves = weight.chunk(2, 0);
    const Tensor &w1 = halves[0], &w2 = halves[1];
    if (transposed)
        return {w1, w2 - w1, -w1 - w2};
    return {w1.t(), -(w1 + w2).t(), (w2 - w1).t()};
}

void append_layer(Matrices &parts, at::TensorList layer, bool mirror, bool transposed) {
    parts.push_back(transposed ? layer[0] : layer[0].t());
    if (!transposed)
        parts.push_back(layer[1].unsqueeze(0));
    for (size_t m = 2; m < layer.size(); ++m)
        for (const Tensor &matrix : of_order(layer[m], mirror, transposed))
            parts.push_back(matrix);
}

Tensor pack(const Tensor &radial_weight, const Tensor &radial_bias, const Matrices &first, const Matrices &second,
            bool mirror) {
    Matrices parts = {radial_weight.t(), radial_bias.unsqueeze(0)};
    append_layer(parts, first, mirror, false);
    append_layer(parts, second, mirror, false);
    append_layer(parts, second, mirror, true);
    append_layer(parts, first, mirror, true);
    parts.push_back(radial_weight);
    return in_panels(parts);
}

Tensor edge_block_pack(const Tensor &radial_weight, const Tensor &radial_bias, at::TensorList first,
                       at::TensorList second, bool mirror) {
    for (const at::TensorList layer : {first, second})
        TORCH_CHECK_VALUE(layer.size() >= 2,
                          "a layer of an edge block is its scalar weight, its bias and a weight an order; found ",
                          layer.size(), " tensors");
    const c10::AutoGradMode frozen(false);
    Tensor packed = pack(PackScope::wanted(radial_weight), PackScope::wanted(radial_bias), PackScope::wanted(first),
                         PackScope::wanted(second), mirror);
    PackScope::show({radial_weight, radial_bias});
    PackScope::show(first);
    PackScope::show(second);
    return packed;
}

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    m.def("edge_block_pack(Tensor radial_weight, Tensor radial_bias, Tensor[] first, Tensor[] second, bool mirror) "
          "-> Tensor",
          edge_block_pack);
}

} // namespace equistride
