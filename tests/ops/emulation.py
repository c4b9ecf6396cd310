"""The CUDA sources, compiled for the host and run with every GPU thread as a fiber: see cuda_emulation/cuda_emulation.h."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch import library as operators
from torch.utils._python_dispatch import TorchDispatchMode

import equistride.graph  # noqa: F401  (loads the operators whose schemas are copied)

CSRC = Path(__file__).resolve().parents[2] / "csrc"
HERE = Path(__file__).resolve().parent / "cuda_emulation"
TORCH = Path(torch.__file__).parent
SOURCES = {
    "atom_block": ["atom_block/cuda.cu", "atom_block/checks.cpp"],
    "convolution": [
        *("tensor_product/cuda.cu", "tensor_product/float32.cu", "tensor_product/float64.cu"),
        *("tensor_product/checks.cpp", "cuda_edges.cu"),
    ],
    "contraction": ["symmetric_contraction/cuda.cu", "symmetric_contraction/checks.cpp"],
    "edge_block": [
        *("edge_block/bonds.cu", "edge_block/bond_checks.cpp"),
        *("edge_block/cuda.cu", "edge_block/tiles_fma32.cu", "edge_block/tiles_fma64.cu", "edge_block/tiles_split.cu"),
        *("edge_block/tiles_tf32.cu", "edge_block/checks.cpp", "cuda_edges.cu", "host_memory.cpp"),
    ],
    "neighbors": ["neighbors/cuda.cu", "neighbors/edges.cu", "neighbors/checks.cpp", "cuda_edges.cu"],
    "strides": ["model/momenta.cu", "propagation/thermostat.cu"],
}
"""Units, each compiled and loaded where a test asks for it."""
CONVOLUTION = ["tensor_product", "tensor_product_backward", "tensor_product_table", "tensor_product_table_backward"]
OPERATORS = {
    "atom_block": ["atom_block", "atom_block_backward", "spherical_norm", "spherical_norm_backward"],
    "convolution": CONVOLUTION,
    "contraction": ["symmetric_contraction", "symmetric_contraction_backward"],
    "edge_block": [
        *("bond_frames", "edge_block", "edge_block_backward", "radial_splines", "radial_splines_backward"),
        *("bond_lengths", "bond_lengths_backward", "edge_degree", "edge_degree_backward"),
    ],
    "neighbors": ["neighbors", "neighbors_padded", "edge_vectors", "edge_vectors_backward", "edge_virial"],
    "strides": ["keep_momenta", "thermostat"],
}
FLAGS = [
    # A fiber is left by longjmp, which fortified headers take for an error; contraction would round unlike the CPU's lists.
    *("-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-U_FORTIFY_SOURCE", "-ffp-contract=off"),
    "-Wno-unknown-pragmas",
    f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
]
_loaded: dict[str, operators.Library] = {}  # the schemas live as long as these do


def _key(compiler: str, files: Iterable[Path]) -> str:
    """A name for what this compiler and torch make of these files."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(version + repr((FLAGS, torch.__version__, SOURCES)).encode())
    for file in sorted(files):
        key.update(file.read_bytes())
    return key.hexdigest()[:16]


def _library(compiler: str, folder: Path, name: str) -> Path:
    """Where the library of a unit lies, or will: named after its sources."""
    sources = SOURCES.get(name, [])
    rooms = {
        room
        for source in sources
        for room in re.findall(r'^#include "(\w+)/', (CSRC / source).read_text(), re.MULTILINE)
    }
    ours = [
        f
        for room in rooms
        for f in (CSRC / room).iterdir()
        if f.suffix in (".h", ".cu") or f.name.endswith("checks.cpp")
    ]
    return folder / f"lib{name}-{_key(compiler, [*HERE.rglob('*.*'), *CSRC.glob('*.*'), *ours])}.so"


def _build(compiler: str, folder: Path, names: Sequence[str]) -> list[Path]:
    """Compile the units that have changed, side by side, and the emulation first, which all are linked with."""
    include = [f"-I{HERE}", f"-I{CSRC}", "-isystem", str(TORCH / "include")]
    include += ["-isystem", str(TORCH / "include" / "torch" / "csrc" / "api" / "include")]
    link = ["-shared", f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10", "-Wl,-Bsymbolic", f"-Wl,-rpath,{TORCH / 'lib'}"]
    emulation = _library(compiler, folder, "emulation")
    made = [emulation, *(_library(compiler, folder, name) for name in names)]

    def start(name: str, sources: Sequence[str], library: Path) -> tuple[Path, Path, subprocess.Popen[str]]:
        for old in folder.glob(f"lib{name}-*.so"):
            old.unlink()
        unit = folder / f"unit_{name}.cpp"
        unit.write_text("".join(f'#include "{file}"\n' for file in ("cuda_emulation.h", *sources)))
        unfinished = library.with_suffix(".unfinished")
        others = [] if name == "emulation" else [str(emulation), f"-Wl,-rpath,{folder}"]
        command = [compiler, *FLAGS, *include, str(unit), *others, *link, "-o", str(unfinished)]
        return unfinished, library, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    units = {"emulation": ["emulation.cpp"]}, {name: SOURCES[name] for name in names}
    for group in units:
        running = [
            start(name, sources, library)
            for name, sources in group.items()
            if not (library := _library(compiler, folder, name)).exists()
        ]
        for unfinished, library, process in running:
            errors = process.communicate()[1]
            assert process.returncode == 0, errors[-4000:]
            unfinished.rename(library)
    return made


def load(cache: pytest.Cache, names: Sequence[str]) -> torch._ops._OpNamespace:
    """Return ``torch.ops.equistride_emulated``: the operators of these of csrc's CUDA sources, for tensors of the CPU.

    Compiled once for a state of the sources, and kept in pytest's cache.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++: the CUDA sources were not run on the host")
    wanted = [name for name in names if name not in _loaded]
    if wanted:
        libraries = _build(compiler, cache.mkdir("cuda_emulation"), wanted)
        for name, library in zip(["emulation", *wanted], libraries, strict=True):
            if name in _loaded:
                continue
            torch.ops.load_library(str(library))
            schemas = operators.Library("equistride_emulated", "FRAGMENT")
            for operator in OPERATORS.get(name, []):
                schema = str(getattr(torch.ops.equistride, operator).default._schema)
                schemas.define(schema.removeprefix("equistride::"))
            _loaded[name] = schemas
    return torch.ops.equistride_emulated


def between_nan(tensor: Tensor) -> Tensor:
    """The same values within a larger piece of memory full of NaN."""
    memory = torch.full((tensor.numel() + 256,), torch.nan, dtype=tensor.dtype)
    memory[128:-128] = tensor.flatten()
    return memory[128:-128].view(tensor.shape)


NO_LAUNCH = {"empty", "empty_like", "empty_strided", "equal", "_local_scalar_dense"}
"""Of torch's operators: memory that nobody writes, and what the host asks of its own tensors."""
REDUCTIONS = ("max", "min", "sum")
"""To one number: a kernel of several blocks, and zeros for the count of those that are done."""
SORT = 10
"""Kernels of a stable sort of 10^5 pairs: numbers to go with, a histogram, its sums, a pass for each of four bytes, copies."""


def _is_view(func: Any, inputs: Any, output: Any) -> bool:
    """Whether the result lies in the memory of an argument that nobody has written to."""
    first = output[0] if isinstance(output, list | tuple) and output else output
    if func._schema.is_mutable or not isinstance(first, Tensor):
        return False
    memory = first.untyped_storage().data_ptr()
    return any(isinstance(given, Tensor) and given.untyped_storage().data_ptr() == memory for given in inputs)


class EmulatedGPU(TorchDispatchMode):
    """What runs here runs as on a GPU: our operators through the emulated kernels, of which each launch is counted, and torch's
    on the CPU, one launch each but for the exceptions above.

    Parameters
    ----------
    emulated
        As :func:`load` returns them.
    names
        Operators to take the place of the CPU's.

    Attributes
    ----------
    launches
        By the operator's name; those of torch's operators that ours call are theirs.
    """

    def __init__(self, emulated: torch._ops._OpNamespace, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.emulated, self.names = emulated, set(names)
        self.launches: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        library, name = func._schema.name.split("::")
        if library == "equistride" and name in self.names:
            func = getattr(self.emulated, name).default
        if func._schema.name.startswith("equistride"):
            before, others = int(self.emulated.launches()), self.launches.copy()
            with self:  # the kernel's own code, whose calls of torch come here as well
                out = func.redispatch(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), *args, **(kwargs or {}))
            inside = (self.launches - others).total()
            self.launches = others
            self.launches[name] += int(self.emulated.launches()) - before + inside
            return out
        out = func(*args, **(kwargs or {}))
        if name == "sort":
            self.launches[name] += SORT
        elif library == "aten" and name not in NO_LAUNCH and not _is_view(func, args, out):
            self.launches[name] += 2 if name in REDUCTIONS and func._overloadname == "default" else 1
        return out


def launches_of(emulated: torch._ops._OpNamespace, call: Callable[[], object]) -> int:
    """Kernels that a call launches, ours and torch's."""
    with EmulatedGPU(emulated) as gpu:
        call()
    return gpu.launches.total()


@contextmanager
def in_place_of_the_cpu(emulated: torch._ops._OpNamespace, names: Sequence[str] = CONVOLUTION) -> Iterator[list[str]]:
    """Let the kernels take the place of the CPU's; yields the names of the operators that are called."""
    called: list[str] = []
    library = operators.Library("equistride", "IMPL")
    for name in names:

        def run(*arguments: object, name: str = name) -> object:
            called.append(name)
            return getattr(emulated, name)(*arguments)

        library.impl(name, run, "CPU", allow_override=True)
    try:
        yield called
    finally:
        library._destroy()
