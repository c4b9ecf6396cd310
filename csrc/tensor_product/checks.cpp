// The checks of the operators' arguments: shapes, types, devices, and what can be seen without reading a tensor.
#include "checks.h"
#include "tensor_product/kernels.h"
#include "tensor_product/tensor_product.h"

#include <algorithm>
#include <cmath>

namespace equistride {

namespace {

void check_matrix(const char *name, const Tensor &tensor, const char *shape) {
    TORCH_CHECK_VALUE(tensor.dim() == 2, name, " must have shape ", shape, "; found ", tensor.sym_sizes());
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

Paths check_convolution(const Convolution &in) {
    const Tensor &x = in.x, &y = in.y, &edge_index = in.edge_index, &weights = in.weights;
    check_matrix("x", x, "[N, columns]");
    check_real("x", x);
    check_matrix("y", y, "[E, columns]");
    check_like("y", y, "x", x);
    check_edge_index(edge_index, "x", x);
    const c10::SymInt edges = edge_index.sym_size(1);
    TORCH_CHECK_VALUE(y.sym_size(0) == edges, "y must have one row an edge, ", edges, "; found ", y.sym_sizes());
    Paths paths(in.paths, in.couplings, x.sym_size(1), y.sym_size(1));
    if (in.lengths == nullptr) {
        check_matrix("weights", weights, "[E, columns]");
        check_like("weights", weights, "x", x);
        TORCH_CHECK_VALUE(weights.sym_size(0) == edges && weights.sym_size(1) == paths.weights_width,
                          "weights must have one row an edge and one column a path and channel, [", edges, ", ",
                          paths.weights_width, "]; found ", weights.sym_sizes());
        return paths;
    }
    const Tensor &lengths = *in.lengths;
    TORCH_CHECK_VALUE(lengths.dim() == 1 && lengths.sym_size(0) == edges, "lengths must hold one number an edge, [",
                      edges, "]; found ", lengths.sym_sizes());
    check_like("lengths", lengths, "x", x);
    check_matrix("table", weights, "[K, columns]");
    check_like("table", weights, "x", x);
    TORCH_CHECK_VALUE(weights.sym_size(0) >= 4 && weights.sym_size(1) == paths.weights_width,
                      "table must have at least 4 rows and one column a path and channel, ", paths.weights_width,
                      "; found ", weights.sym_sizes());
    TORCH_CHECK_VALUE(std::isfinite(in.start) && std::isfinite(in.step) && in.step > 0,
                      "the table needs a finite start and a step above 0; found ", in.start, " and ", in.step);
    return paths;
}

void check_receivers(const c10::SymInt &num_receivers) {
    TORCH_CHECK_VALUE(num_receivers >= 0, "num_receivers must not be negative; found ", num_receivers);
}

void check_grad(const Tensor &grad, const Tensor &x, const Paths &paths) {
    check_matrix("grad", grad, "[num_receivers, columns]");
    check_like("grad", grad, "x", x);
    TORCH_CHECK_VALUE(grad.sym_size(1) == paths.out_width, "grad must have the columns of the output, ",
                      paths.out_width, "; found ", grad.sym_sizes());
}

} // namespace equistride
