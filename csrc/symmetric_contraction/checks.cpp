// The checks of the operators' arguments: shapes, types, devices, and what can be seen without reading a tensor.
#include "checks.h"
#include "symmetric_contraction/symmetric_contraction.h"

namespace equistride {

void check_contraction(const Tensor &x, const Tensor &table, const Tensor &species, const Tensor &terms,
                       int64_t outputs) {
    check_real("x", x);
    TORCH_CHECK_VALUE(table.dim() == 3 && table.sym_size(2) > 0,
                      "table must have shape [species, rows, channels], with channels; found ", table.sym_sizes());
    TORCH_CHECK_VALUE(x.dim() == 2 && x.sym_size(1) % table.sym_size(2) == 0 && x.sym_size(1) > 0,
                      "x must have shape [N, rows times the table's ", table.sym_size(2), " channels]; found ",
                      x.sym_sizes());
    check_like("table", table, "x", x);
    TORCH_CHECK_VALUE(species.dim() == 1 && species.sym_size(0) == x.sym_size(0),
                      "species must hold one index an atom, [", x.sym_size(0), "]; found ", species.sym_sizes());
    TORCH_CHECK_TYPE(species.scalar_type() == at::kLong, "species must be int64; found ", species.scalar_type());
    TORCH_CHECK_VALUE(terms.dim() == 2 && terms.sym_size(1) == MONOMIAL_FIELDS, "terms must have shape [T, ",
                      MONOMIAL_FIELDS, "]; found ", terms.sym_sizes());
    TORCH_CHECK_TYPE(terms.scalar_type() == at::kInt, "terms must be int32; found ", terms.scalar_type());
    TORCH_CHECK_VALUE(outputs > 0, "outputs must be above 0; found ", outputs);
    check_device("species", species, "x", x);
    check_device("terms", terms, "x", x);
}

void check_contraction_grad(const Tensor &grad, const Tensor &x, const Tensor &table) {
    check_like("grad", grad, "x", x);
    TORCH_CHECK_VALUE(grad.dim() == 2 && grad.sym_size(0) == x.sym_size(0) && grad.sym_size(1) > 0 &&
                          grad.sym_size(1) % table.sym_size(2) == 0,
                      "grad must have the shape of the output, [", x.sym_size(0), ", rows times ", table.sym_size(2),
                      "]; found ", grad.sym_sizes());
}

} // namespace equistride
