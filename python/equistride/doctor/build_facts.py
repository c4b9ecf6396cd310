"""What the native libraries were built for, as their build wrote it down."""

from __future__ import annotations

import json

from equistride import _native
from equistride.lammps.plugin import library_directory

LIBRARY_DIR = library_directory()
OPERATORS = "libequistride_ops.so"
OPENMM_PLUGIN, OPENMM_CUDA = "libEquistrideOpenMM.so", "libEquistrideOpenMMCUDA.so"
LAMMPS_PLUGIN = "lammps/equistrideplugin.so"


def build_facts() -> dict[str, str]:
    """Return ``torch`` and ``cuda`` ("none": CPU alone); ``cuda_architectures``, ``openmm``, ``lammps``, ``instruction_sets`` and
    ``compiler`` where the build has them and its file is whole."""
    try:
        facts = {str(k): str(v) for k, v in json.loads((LIBRARY_DIR / "build.json").read_text()).items()}
    except (OSError, ValueError):
        facts = {}
    return facts | {"torch": _native.torch_version, "cuda": facts.get("cuda", "none")}


def missing(library: str) -> bool:
    """Whether a library of ours is not in its place."""
    return not (LIBRARY_DIR / library).is_file()


def minor(version: str) -> str:
    """Return ``2.13`` of ``2.13.0+cpu``."""
    return ".".join(version.split("+")[0].split(".")[:2])
