"""The entry point of the group ``lammps.plugins``: LAMMPS's Python package asks it where plugins lie. Light: no torch here."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from equistride.lammps.host import mpi_library


def plugin_directory() -> str:
    """Return the folder of equistride's plugin for LAMMPS.

    It also loads the MPI library for all to see, as ``from lammps import lammps`` needs it; the ``lmp`` command has its own.
    """
    library = mpi_library()
    if library is not None and sys.platform == "linux":
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return str(library_directory() / "lammps")


def library_directory() -> Path:
    """Return the folder of equistride's native libraries."""
    from equistride import _native

    return Path(_native.__file__).resolve().parent / "lib"
