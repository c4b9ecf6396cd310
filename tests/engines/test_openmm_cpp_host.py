"""A System's XML runs in a C++ program: the model travels inside, and the plugin needs no Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm_systems import Structure, context, energy_forces

from equistride._library import LIBRARY_DIR
from equistride.engines.openmm import create_system


def test_xml_in_a_cpp_program(artifact64: Path, crystal: Structure, tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    wheel = Path(openmm.__file__).parents[1] / "OpenMM.libs"
    if not (wheel / "include" / "OpenMM.h").exists():
        pytest.skip("this openmm has no headers")
    library = wheel / "lib"
    program = tmp_path / "host"
    command = [
        compiler,
        "-std=c++17",
        "-isystem",
        str(wheel / "include"),
        str(Path(__file__).with_name("host.cpp")),
        "-o",
        str(program),
        f"-L{library}",
        "-lOpenMM",
        f"-Wl,-rpath,{library}",
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    system = create_system(artifact64, crystal.topology, backend="plugin")
    (tmp_path / "system.xml").write_text(openmm.XmlSerializer.serialize(system))
    np.savetxt(tmp_path / "positions.txt", crystal.positions / 10, fmt="%.17g")
    arguments = [LIBRARY_DIR / "libEquistrideOpenMM.so", tmp_path / "system.xml", tmp_path / "positions.txt"]
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    energy, message = done.stdout.splitlines()
    assert float(energy) == energy_forces(context(system, crystal.positions))[0]
    assert message.startswith("atoms 0 and 1 are on top of each other")
