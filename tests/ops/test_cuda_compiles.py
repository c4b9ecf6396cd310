"""The CUDA sources compile for two generations of GPU, also where torch itself has no CUDA.

Only the smallest is compiled whole, with the host's side of a launch; of the others the device's code: their host code is
compiled and run in test_cuda_emulation.py.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

CSRC = Path(__file__).resolve().parents[2] / "csrc"
INCLUDE = Path(torch.__file__).parent / "include"
WHOLE = "neighbors/edges.cu"


@pytest.mark.parametrize("source", sorted(str(p.relative_to(CSRC)) for p in CSRC.rglob("*.cu")))
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
    command += ["-gencode=arch=compute_80,code=[sm_80,sm_90,sm_100]"]  # one pass of the front end for all
    command += ["-Xptxas=-O1"]  # that it compiles is the question
    command += ["-Xcompiler=-Wall", "-c" if source == WHOLE else "-fatbin"]
    command += [str(CSRC / source), "-o", str(tmp_path / "out.o")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "out.o").stat().st_size > 10_000
