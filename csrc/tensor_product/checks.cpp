// The checks of the operators' arguments: shapes, types, devices, and what can be seen without reading a tensor.
#include "tensor_product/kernels.h"
#include "tensor_product/tensor_product.h"

#include <algorithm>
#include <cmath>

namespace equistride {

namespace {

void check_matrix(const char *name, const Tensor &tensor, const char *shape) {
    TORCH_CHECK_VALUE(tensor.dim() == 2, name, " must have shape ", shape, "; found ", tensor.sym_sizes());
}

void check_like(const char *name, const Tensor &tensor, const Tensor &x) {
    TORCH_CHECK_TYPE(tensor.scalar_type() == x.scalar_type(), name, " must have the type of x, ", x.scalar_type(),
                     "; found ", tensor.scalar_type(), "; convert one of them");
    TORCH_CHECK_VALUE(tensor.device() == x.device(), name, " must lie on the device of x, ", x.device(), "; found ",
                      tensor.device());
}

} // namespace

Paths::Paths(IntArrayRef paths, ArrayRef<double> couplings, const c10::SymInt &x_width, const c10::SymInt &y_width) {
    TORCH_CHECK_VALUE(!paths.empty() && paths.size() % PATH_FIELDS == 0, "paths must hold ", PATH_FIELDS,
                      " integers a path and at least one path; found ", paths.size(), " integers");
    for (const int64_t *p = paths.begin(); p != paths.end(); p += PATH_FIELDS) {
        const Path path{p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9]};
        const int64_t coefficients = (2 * path.l1 + 1) * (2 * path.l2 + 1) * (2 * path.l3 + 1);
        for (const int64_t l : {path.l1, path.l2, path.l3})
            TORCH_CHECK_VALUE(l >= 0 && l <= MAX_DEGREE, "degrees of a path must lie between 0 and ", MAX_DEGREE,
                              "; found ", l);
        TORCH_CHECK_VALUE(
            path.channels > 0 && path.out_stride >= path.channels && *std::min_element(p + 3, p + PATH_FIELDS) >= 0,
            "channels and columns of a path must not be negative nor overlap; found ", IntArrayRef(p, PATH_FIELDS));
        TORCH_CHECK_VALUE(path.x + (2 * path.l1 + 1) * path.channels <= x_width, "x has ", x_width,
                          " columns; a path reads up to column ", path.x + (2 * path.l1 + 1) * path.channels,
                          "; give x the irreps that the paths were made for");
        TORCH_CHECK_VALUE(path.y + 2 * path.l2 + 1 <= y_width, "y has ", y_width,
                          " columns; a path reads up to column ", path.y + 2 * path.l2 + 1,
                          "; give y the spherical harmonics that the paths were made for");
        TORCH_CHECK_VALUE(path.couplings + coefficients <= int64_t(couplings.size()), "couplings holds ",
                          couplings.size(), " coefficients; a path reads up to ", path.couplings + coefficients);
        all.push_back(path);
        weights_width = std::max(weights_width, path.weights + path.channels);
        out_width = std::max(out_width, path.out + 2 * path.l3 * path.out_stride + path.channels);
    }
}

void check_rows(const Tensor &x, const Tensor &y, const Tensor &edge_index) {
    check_matrix("x", x, "[N, columns]");
    TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble,
                     "x must be float32 or float64; found ", x.scalar_type());
    check_matrix("y", y, "[E, columns]");
    check_like("y", y, x);
    TORCH_CHECK_VALUE(edge_index.dim() == 2 && edge_index.sym_size(0) == 2, "edge_index must have shape [2, E]; found ",
                      edge_index.sym_sizes());
    TORCH_CHECK_TYPE(edge_index.scalar_type() == at::kLong, "edge_index must be int64; found ",
                     edge_index.scalar_type());
    TORCH_CHECK_VALUE(edge_index.device() == x.device(), "edge_index must lie on the device of x, ", x.device(),
                      "; found ", edge_index.device());
    TORCH_CHECK_VALUE(y.sym_size(0) == edge_index.sym_size(1), "y must have one row an edge, ", edge_index.sym_size(1),
                      "; found ", y.sym_sizes());
}

void check_weights(const Tensor &x, const Tensor &weights, const Tensor &edge_index, const Paths &paths) {
    check_matrix("weights", weights, "[E, columns]");
    check_like("weights", weights, x);
    TORCH_CHECK_VALUE(weights.sym_size(0) == edge_index.sym_size(1) && weights.sym_size(1) == paths.weights_width,
                      "weights must have one row an edge and one column a path and channel, [", edge_index.sym_size(1),
                      ", ", paths.weights_width, "]; found ", weights.sym_sizes());
}

void check_table(const Tensor &x, const RadialTable &radial, const Tensor &edge_index, const Paths &paths) {
    const Tensor &lengths = radial.lengths, &table = radial.table;
    TORCH_CHECK_VALUE(lengths.dim() == 1 && lengths.sym_size(0) == edge_index.sym_size(1),
                      "lengths must hold one number an edge, [", edge_index.sym_size(1), "]; found ",
                      lengths.sym_sizes());
    check_like("lengths", lengths, x);
    check_matrix("table", table, "[K, columns]");
    check_like("table", table, x);
    TORCH_CHECK_VALUE(table.sym_size(0) >= 4 && table.sym_size(1) == paths.weights_width,
                      "table must have at least 4 rows and one column a path and channel, ", paths.weights_width,
                      "; found ", table.sym_sizes());
    TORCH_CHECK_VALUE(std::isfinite(radial.start) && std::isfinite(radial.step) && radial.step > 0,
                      "the table needs a finite start and a step above 0; found ", radial.start, " and ", radial.step);
}

void check_receivers(const c10::SymInt &num_receivers) {
    TORCH_CHECK_VALUE(num_receivers >= 0, "num_receivers must not be negative; found ", num_receivers);
}

void check_grad(const Tensor &grad, const Tensor &x, const Paths &paths) {
    check_matrix("grad", grad, "[num_receivers, columns]");
    check_like("grad", grad, x);
    TORCH_CHECK_VALUE(grad.sym_size(1) == paths.out_width, "grad must have the columns of the output, ",
                      paths.out_width, "; found ", grad.sym_sizes());
}

} // namespace equistride
