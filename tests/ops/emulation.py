"""The CUDA sources, compiled for the host and run with every GPU thread as a fiber: see cuda_emulation/cuda_emulation.h."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import library as operators

import equistride.graph  # noqa: F401  (loads the operators whose schemas are copied)

CSRC = Path(__file__).resolve().parents[2] / "csrc"
HERE = Path(__file__).resolve().parent / "cuda_emulation"
TORCH = Path(torch.__file__).parent
UNITS = {
    "convolution": ["tensor_product/cuda.cu", "tensor_product/checks.cpp"],
    "contraction": ["symmetric_contraction/cuda.cu", "symmetric_contraction/checks.cpp"],
    "edge_block": ["edge_block/cuda.cu", "edge_block/checks.cpp", "host_memory.cpp"],
    "neighbors": ["neighbors/cuda.cu", "neighbors/edges.cu", "neighbors/checks.cpp", "emulation.cpp"],
}
CONVOLUTION = ["tensor_product", "tensor_product_backward", "tensor_product_table", "tensor_product_table_backward"]
OPERATORS = [
    *CONVOLUTION,
    *("bond_frames", "edge_block", "edge_block_backward", "radial_splines", "radial_splines_backward"),
    *("symmetric_contraction", "symmetric_contraction_backward"),
    *("neighbors", "neighbors_padded", "edge_vectors", "edge_vectors_backward"),
]
FLAGS = [
    # A fiber is left by longjmp, which fortified headers take for an error; contraction would round unlike the CPU's lists.
    *("-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-U_FORTIFY_SOURCE", "-ffp-contract=off"),
    "-Wno-unknown-pragmas",
    f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}",
]
_libraries: list[operators.Library] = []  # the schemas live as long as these do


def _key(compiler: str, files: list[Path]) -> str:
    """A name for what this compiler and torch make of these files."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True).stdout
    key = hashlib.sha256(version + repr((FLAGS, torch.__version__, UNITS)).encode())
    for file in sorted(files):
        key.update(file.read_bytes())
    return key.hexdigest()[:16]


def _build(compiler: str, folder: Path) -> Path:
    """Compile the units that have changed, side by side, and link them."""
    include = [f"-I{HERE}", f"-I{CSRC}", "-isystem", str(TORCH / "include")]
    include += ["-isystem", str(TORCH / "include" / "torch" / "csrc" / "api" / "include")]
    shared = [*HERE.rglob("*.*"), *CSRC.glob("*.*")]
    objects, running = [], []
    for name, sources in UNITS.items():
        rooms = {Path(source).parts[0] for source in sources if "/" in source}
        made = folder / f"{name}-{_key(compiler, shared + [f for room in rooms for f in (CSRC / room).glob('*.*')])}.o"
        objects.append(made)
        if not made.exists():
            unit = folder / f"{name}.cpp"
            unit.write_text("".join(f'#include "{file}"\n' for file in ("cuda_emulation.h", *sources)))
            command = [compiler, *FLAGS, *include, "-c", str(unit), "-o", str(unit.with_suffix(".o"))]
            running.append((unit, made, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)))
    for unit, made, process in running:
        errors = process.communicate()[1]
        assert process.returncode == 0, errors[-4000:]
        unit.with_suffix(".o").rename(made)
    library = folder / f"{_key(compiler, objects)}.so"
    for old in folder.iterdir():
        if old not in (*objects, library):
            old.unlink()
    if not library.exists():
        command = [compiler, "-shared", *map(str, objects), "-o", str(library)]
        command += [f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10", "-Wl,-Bsymbolic", f"-Wl,-rpath,{TORCH / 'lib'}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    return library


def load(cache: pytest.Cache) -> torch._ops._OpNamespace:
    """Return ``torch.ops.equistride_emulated``: the operators of csrc's CUDA sources, for tensors of the CPU.

    Compiled once for a state of the sources, and kept in pytest's cache.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++: the CUDA sources were not run on the host")
    if not _libraries:
        torch.ops.load_library(str(_build(compiler, cache.mkdir("cuda_emulation"))))
        schemas = operators.Library("equistride_emulated", "FRAGMENT")
        for name in OPERATORS:
            schema = str(getattr(torch.ops.equistride, name).default._schema)
            schemas.define(schema.removeprefix("equistride::"))
        _libraries.append(schemas)
    return torch.ops.equistride_emulated


def between_nan(tensor: Tensor) -> Tensor:
    """The same values within a larger piece of memory full of NaN."""
    memory = torch.full((tensor.numel() + 256,), torch.nan, dtype=tensor.dtype)
    memory[128:-128] = tensor.flatten()
    return memory[128:-128].view(tensor.shape)


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
