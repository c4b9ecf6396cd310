"""Build the plugin for a LAMMPS that one has compiled oneself."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from equistride import __version__
from equistride.errors import EquistrideError
from equistride.lammps.host import Host, HostError, facts_of, installed_host
from equistride.lammps.plugin import library_directory

MEND = "run `python -m equistride.lammps build --help`"


def sources() -> Path:
    """Return the folder of the plugin's sources: in the installed package, or in the source tree."""
    installed = library_directory().parent / "lammps_plugin"
    tree = Path(__file__).resolve().parents[3] / "lammps_plugin"
    for folder in (installed, tree):
        if (folder / "CMakeLists.txt").is_file():
            return folder
    raise EquistrideError("the sources of the plugin are missing", hint="install equistride again")


def build(output: Path, lmp: Path | None = None, headers: Path | None = None, mpi_headers: Path | None = None) -> Path:
    """Compile the plugin.

    Parameters
    ----------
    output
        Folder for ``equistrideplugin.so``; set ``LAMMPS_PLUGIN_PATH`` to it.
    lmp, headers, mpi_headers
        The executable, LAMMPS's ``src`` folder, and the folder with ``mpi.h`` (``src/STUBS`` for a LAMMPS without MPI). None
        of them: the installed Python package.

    Returns
    -------
    Path
        The plugin.

    Raises
    ------
    EquistrideError
        Where a file is missing or the compiler fails.
    """
    try:
        if lmp is None and headers is None and mpi_headers is None:
            host = installed_host()
        elif lmp is None or headers is None or mpi_headers is None:
            raise EquistrideError(
                "the options of another LAMMPS must be given together", expected="--lmp, --headers and --mpi", hint=MEND
            )
        else:
            host = Host(*facts_of(Path(lmp)), Path(headers), Path(mpi_headers))
    except HostError as reason:
        raise EquistrideError(str(reason)) from None
    for folder, file in ((host.headers, "pair.h"), (host.mpi_headers, "mpi.h")):
        if not (folder / file).is_file():
            raise EquistrideError(f"{folder} has no {file}", expected="the folder of the header", hint=MEND)
    if shutil.which("cmake") is None:
        raise EquistrideError("cmake is not installed", hint="pip install cmake")
    source = sources()
    include = source / "include" if (source / "include").is_dir() else source.parent / "csrc"
    facts: dict[str, object] = {
        "CMAKE_BUILD_TYPE": "Release",
        "Python_EXECUTABLE": sys.executable,
        "EQUISTRIDE_VERSION": __version__,
        "EQUISTRIDE_LIBRARY_DIR": library_directory(),
        "EQUISTRIDE_INCLUDE_DIR": include,
        "EQUISTRIDE_LAMMPS_VERSION": host.version,
        "EQUISTRIDE_LAMMPS_INTEGERS": host.integers,
        "EQUISTRIDE_LAMMPS_HEADERS": host.headers.resolve(),
        "EQUISTRIDE_MPI_HEADERS": host.mpi_headers.resolve(),
    }
    with tempfile.TemporaryDirectory() as scratch:
        if not (include / "equistride" / "units.h").is_file():
            generated = Path(scratch) / "generated"
            _run(
                [sys.executable, str(Path(__file__).parents[1] / "units.py"), str(generated / "equistride" / "units.h")]
            )
            facts["EQUISTRIDE_INCLUDE_DIR"] = f"{include};{generated}"
        options = [f"-D{name}={value}" for name, value in facts.items()]
        _run(["cmake", "-S", str(source), "-B", scratch, *options])
        _run(["cmake", "--build", scratch])
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(Path(scratch) / "equistrideplugin.so", output / "equistrideplugin.so"))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        log = (done.stdout + done.stderr).strip().splitlines()
        raise EquistrideError("the plugin could not be built:\n" + "\n".join(log[-30:]))
