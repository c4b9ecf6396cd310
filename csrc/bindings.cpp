// equistride._native: what Python must know of the build before it loads the operators.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_native, m) {
    m.doc() = "Facts of the native build; the operators themselves live in libequistride_ops (torch.ops.equistride).";
    m.attr("__version__") = EQUISTRIDE_VERSION;
    m.attr("torch_version") = EQUISTRIDE_TORCH_VERSION;
    m.attr("torch_cuda") = EQUISTRIDE_TORCH_CUDA;
}
