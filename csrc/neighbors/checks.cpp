// The checks of the operators' arguments: shapes, types, devices, and what can be seen without reading a tensor.
#include "checks.h"
#include "neighbors/neighbors.h"

#include <cmath>

namespace equistride {

namespace {

void check_rows(const char *name, const Tensor &tensor) {
    TORCH_CHECK_VALUE(tensor.dim() == 2 && tensor.sym_size(1) == 3, name, " must have shape [N, 3]; found ",
                      tensor.sym_sizes());
    check_real(name, tensor);
}

void check_cell(const Tensor &cell, const Tensor &positions) {
    TORCH_CHECK_VALUE(cell.dim() == 2 && cell.sym_size(0) == 3 && cell.sym_size(1) == 3,
                      "cell must have shape [3, 3]; found ", cell.sym_sizes());
    check_like("cell", cell, "the positions", positions);
}

void check_edges(const char *name, const Tensor &like, const Tensor &edge_index, const Tensor &shifts) {
    check_edge_index(edge_index, name, like);
    TORCH_CHECK_VALUE(shifts.dim() == 2 && shifts.sym_size(1) == 3 && shifts.sym_size(0) == edge_index.sym_size(1),
                      "shifts must have shape [E, 3] with the E of edge_index, ", edge_index.sym_size(1), "; found ",
                      shifts.sym_sizes());
    TORCH_CHECK_TYPE(shifts.scalar_type() == at::kInt, "shifts must be int32; found ", shifts.scalar_type());
    check_device("shifts", shifts, name, like);
}

} // namespace

void check_structure(const Tensor &positions, const Tensor &cell, const Tensor &pbc, double cutoff) {
    check_rows("positions", positions);
    check_cell(cell, positions);
    TORCH_CHECK_VALUE(pbc.dim() == 1 && pbc.sym_size(0) == 3, "pbc must have shape [3]; found ", pbc.sym_sizes());
    TORCH_CHECK_TYPE(pbc.scalar_type() == at::kBool, "pbc must be bool; found ", pbc.scalar_type());
    check_device("pbc", pbc, "the positions", positions);
    TORCH_CHECK_VALUE(std::isfinite(cutoff) && cutoff > 0, "cutoff must be finite and above 0; found ", cutoff);
    TORCH_CHECK_VALUE(positions.sym_size(0) < (int64_t(1) << 31) - 64, "a list holds fewer than 2^31 atoms; found ",
                      positions.sym_size(0));
}

void check_regular(bool regular, const Tensor &cell) {
    if (regular)
        return;
    const Tensor rows = cell.to(at::kCPU, at::kDouble).contiguous();
    const auto row = [x = rows.const_data_ptr<double>()](int i) {
        return c10::str('(', x[3 * i], ", ", x[3 * i + 1], ", ", x[3 * i + 2], ')');
    };
    TORCH_CHECK_VALUE(false, "the cell must have independent, finite vectors along the periodic axes; found ", row(0),
                      ", ", row(1), " and ", row(2), "; give the missing vectors or switch pbc off there");
}

void check_padding(int64_t capacity, int64_t extra) {
    TORCH_CHECK_VALUE(capacity >= 0 && capacity < (int64_t(1) << 31),
                      "capacity must lie between 0 and 2^31 - 1; found ", capacity);
    TORCH_CHECK_VALUE(extra >= 2 && extra < (int64_t(1) << 31), "extra atoms must be at least 2; found ", extra);
}

void check_vectors(const Tensor &positions, const Tensor &cell, const Tensor &edge_index, const Tensor &shifts) {
    check_rows("positions", positions);
    check_cell(cell, positions);
    check_edges("the positions", positions, edge_index, shifts);
}

void check_virial(const Tensor &vectors, const Tensor &gradient) {
    check_rows("vectors", vectors);
    check_rows("gradient", gradient);
    TORCH_CHECK_VALUE(gradient.sym_size(0) == vectors.sym_size(0), "gradient must have one row an edge, ",
                      vectors.sym_size(0), "; found ", gradient.sym_sizes());
    check_like("gradient", gradient, "the vectors", vectors);
}

void check_edge_grad(const Tensor &grad, const Tensor &edge_index, const Tensor &shifts) {
    check_rows("grad", grad);
    check_edges("grad", grad, edge_index, shifts);
    TORCH_CHECK_VALUE(grad.sym_size(0) == shifts.sym_size(0), "grad must have one row an edge, ", shifts.sym_size(0),
                      "; found ", grad.sym_sizes());
}

} // namespace equistride
