"""The CUDA sources compile for two generations of GPU, also where torch itself has no CUDA."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

CSRC = Path(__file__).resolve().parents[2] / "csrc"
INCLUDE = Path(torch.__file__).parent / "include"


@pytest.mark.parametrize("source", sorted(p.name for p in (CSRC / "neighbors").glob("*.cu")))
def test_compiles(source: str, tmp_path: Path) -> None:
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on the path: the CUDA sources were not compiled")
    command = [
        nvcc,
        "-std=c++20",
        "-O1",
        "--expt-relaxed-constexpr",
        "-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE",
        f"-I{CSRC}",
    ]
    command += ["-isystem", str(INCLUDE), "-isystem", str(INCLUDE / "torch/csrc/api/include")]
    command += ["-gencode=arch=compute_80,code=[sm_80,sm_90]"]  # one pass of the front end for both
    command += ["-Xcompiler=-Wall", "-c", str(CSRC / "neighbors" / source), "-o", str(tmp_path / "out.o")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "out.o").stat().st_size > 10_000
