"""The host code for CUDA compiles, and the kernels of OpenMM's platform, as far as a machine without a GPU can tell."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import openmm
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "openmm_plugin" / "cuda"


@pytest.fixture(scope="module")
def toolkit() -> Path:
    """Include folder of the CUDA toolkit."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc in PATH: the CUDA toolkit is not installed")
    answer = subprocess.run([nvcc, "-v", "-E", "-x", "cu", "/dev/null"], capture_output=True, text=True).stderr
    tops = re.findall(r"#\$ TOP=(\S+)", answer)
    folders = [Path(top) / "include" for top in tops] + [Path(nvcc).resolve().parents[1] / "include"]
    for folder in folders:
        if (folder / "cuda_runtime_api.h").exists():
            return folder
    pytest.skip(f"the headers of the CUDA toolkit were not found beside {nvcc}")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the generated table of units."""
    from equistride.units import cpp_header

    folder = tmp_path_factory.mktemp("generated")
    (folder / "equistride").mkdir()
    (folder / "equistride" / "units.h").write_text(cpp_header())
    return folder


@pytest.mark.parametrize(
    "name",
    [
        *(f"openmm_plugin/cuda/{name}.cpp" for name in ("cuda_kernel", "factory", "move_atoms")),
        "csrc/evaluation/captured_step_cuda.cpp",
    ],
)
def test_host_code(name: str, toolkit: Path, generated: Path, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    if not (ROOT / name).exists():
        pytest.skip("the sources are not beside the tests")
    torch_include = Path(torch.__file__).parent / "include"
    openmm_include = Path(openmm.__file__).parents[1] / "OpenMM.libs" / "include"
    ours = [ROOT / "openmm_plugin", ROOT / "csrc", generated]
    theirs = [torch_include, torch_include / "torch" / "csrc" / "api" / "include", openmm_include, toolkit]
    command = [
        compiler,
        "-std=c++20",
        "-O0",
        "-fPIC",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE",
    ]
    command += [f"-I{folder}" for folder in ours]
    for folder in theirs:
        command += ["-isystem", str(folder)]
    done = subprocess.run(
        [*command, "-c", str(ROOT / name), "-o", str(tmp_path / "out.o")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("real", ["float", "double"])
def test_device_code(real: str, toolkit: Path, tmp_path: Path) -> None:
    # OpenMM compiles this text at run time, with `real` defined for its precision.
    text = (SOURCES / "kernel_sources.h").read_text()
    kernels = re.search(r'R"\((.*?)\)"', text, re.DOTALL)
    assert kernels is not None
    file = tmp_path / "kernels.cu"
    file.write_text(f"typedef {real} real; typedef {real}4 real4; typedef double4 mixed4;\n{kernels.group(1)}")
    nvcc = str(shutil.which("nvcc"))
    done = subprocess.run(
        [
            nvcc,
            "-arch=sm_80",
            "-ptx",
            "-Wno-deprecated-gpu-targets",
            str(file),
            "-o",
            str(tmp_path / "kernels.ptx"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    ptx = (tmp_path / "kernels.ptx").read_text()
    for name in ("copyPositions", "addForces", "readAtoms", "writeAtoms"):
        assert f".entry {name}" in ptx
