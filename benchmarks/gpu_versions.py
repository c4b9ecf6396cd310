"""What a machine with a GPU has: driver, compilers, packages; what will not fit is better known before the build.

python benchmarks/gpu_versions.py
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = (
    "openmm",
    "openmm-cuda-13",
    "openmm-cuda-12",
    "e3nn",
    "ase",
    "pydantic",
    "pydantic-core",
    "scikit-build-core",
)
MORE = ("pybind11", "swig", "ninja", "cmake", "pytest", "pytest-xdist", "hypothesis", "nvalchemi-toolkit-ops")


def last_line(*command: str) -> str:
    """Return the last line that a program prints."""
    if shutil.which(command[0]) is None:
        return "not there"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[-1]


def nvrtc() -> str:
    """Return the version of the compiler whose programs OpenMM hands to the driver: a newer one than the driver's fails."""
    for name in ("libnvrtc.so.13", "libnvrtc.so.12"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        major, minor = ctypes.c_int(), ctypes.c_int()
        library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"
    return "not on the path"


def main() -> None:
    """Print them."""
    print("python", sys.version.split()[0], "with", os.cpu_count(), "processors")
    print("torch", torch.__version__, "CUDA", torch.version.cuda, "on", torch.cuda.get_device_name())
    print(
        "driver",
        last_line("nvidia-smi", "--query-gpu=driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"),
    )
    print("nvcc", last_line("nvcc", "--version"), "| nvrtc", nvrtc(), "| ncu", last_line("ncu", "--version"))
    for name in PACKAGES + MORE:
        try:
            print(name, version(name))
        except PackageNotFoundError:
            print(name, "is missing")


if __name__ == "__main__":
    main()
