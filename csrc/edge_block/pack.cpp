// The matrices of a block in the order and the layout in which the kernels read them: made when a model is loaded, so
// that files know nothing of it.
#include "edge_block/edge_block.h"
#include "edge_block/kernels.h"

#include <ATen/ATen.h>
#include <torch/library.h>

namespace equistride {

namespace {

using Matrices = std::vector<Tensor>;

// A matrix [k, n] as [panels, k, PANEL], with zeros beyond its last column.
Tensor panels(const Tensor &matrix) {
    const int64_t k = matrix.size(0), n = matrix.size(1), missing = (PANEL - n % PANEL) % PANEL;
    return at::constant_pad_nd(matrix, {0, missing}).view({k, -1, PANEL}).transpose(0, 1).flatten();
}

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
    parts.push_back(panels(transposed ? layer[0] : layer[0].t()));
    if (!transposed)
        parts.push_back(panels(layer[1].unsqueeze(0)));
    for (size_t m = 2; m < layer.size(); ++m)
        for (const Tensor &matrix : of_order(layer[m], mirror, transposed))
            parts.push_back(panels(matrix));
}

Tensor edge_block_pack(const Tensor &radial_weight, const Tensor &radial_bias, at::TensorList first,
                       at::TensorList second, bool mirror) {
    for (const at::TensorList layer : {first, second})
        TORCH_CHECK_VALUE(layer.size() >= 2,
                          "a layer of an edge block is its scalar weight, its bias and a weight an order; found ",
                          layer.size(), " tensors");
    Matrices parts = {panels(radial_weight.t()), panels(radial_bias.unsqueeze(0))};
    append_layer(parts, first, mirror, false);
    append_layer(parts, second, mirror, false);
    append_layer(parts, second, mirror, true);
    append_layer(parts, first, mirror, true);
    parts.push_back(panels(radial_weight));
    return at::cat(parts).detach();
}

} // namespace

TORCH_LIBRARY_FRAGMENT(equistride, m) {
    m.def("edge_block_pack(Tensor radial_weight, Tensor radial_bias, Tensor[] first, Tensor[] second, bool mirror) "
          "-> Tensor",
          edge_block_pack);
}

} // namespace equistride
