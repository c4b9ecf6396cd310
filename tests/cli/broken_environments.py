"""Environments of Python in which something is missing, another, or broken: links to this one, and a copy of equistride."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from equistride import _native

REPOSITORY = Path(__file__).resolve().parents[2]


class Environment:
    """An environment in a folder.

    Parameters
    ----------
    folder
        Where it goes.
    without
        Beginnings of names in ``site-packages`` that it lacks, in small letters: packages with their metadata.
    """

    def __init__(self, folder: Path, without: tuple[str, ...] = ()) -> None:
        here, lib = Path(sysconfig.get_path("purelib")), Path(sys.prefix) / "lib"
        self.folder, self.site = folder, folder / here.relative_to(sys.prefix)
        self.package = self.site / "equistride"
        (folder / "bin").mkdir(parents=True)
        self.site.mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
        home = Path(os.path.realpath(sys.executable)).parent
        (folder / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
        for entry in here.iterdir():
            ours = entry.name == "equistride" or "editable" in entry.name or entry.suffix == ".pth"
            if not ours and not entry.name.lower().startswith(without):
                (self.site / entry.name).symlink_to(entry)
        for entry in lib.iterdir():
            if not entry.name.startswith("python"):  # libmpi of the package mpich
                (folder / "lib" / entry.name).symlink_to(entry)
        unwanted = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "python" / "equistride", self.package, ignore=unwanted)
        shutil.copytree(Path(_native.__file__).parent, self.package, ignore=unwanted, dirs_exist_ok=True)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run its Python, which finds programs nowhere but in its ``bin``."""
        kept: Mapping[str, str] = {
            k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "PYTHON", "CXX", "LAMMPS_", "LD_"))
        }
        environment = {**kept, "PATH": str(self.folder / "bin"), "OMP_NUM_THREADS": "1", **variables}
        command = [str(self.folder / "bin" / "python"), *arguments]
        return subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=300)
