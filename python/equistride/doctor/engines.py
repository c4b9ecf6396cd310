"""OpenMM, LAMMPS and MPI, judged by what their probes told."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from equistride.doctor.build_facts import LAMMPS_PLUGIN, LIBRARY_DIR, OPENMM_PLUGIN, build_facts, minor, missing
from equistride.doctor.children import ENDED, ERRORS
from equistride.doctor.finding import Finding
from equistride.doctor.installation import AGAIN

LAMMPS = "pip install 'equistride[lammps]'"
PLUGIN_PATH = "LAMMPS_PLUGIN_PATH"
COMPILE, TORCH_FIRST = (
    "compile it for this LAMMPS: python -m equistride.lammps build",
    "mend what is said of torch first",
)
REFUSAL = "equistride's styles are not available: "
"""How the plugin's own sentence begins on LAMMPS's stderr."""


def of_openmm(facts: dict[str, Any], torch: dict[str, Any]) -> list[Finding]:
    """Whether OpenMM is there, is the one that the plugin was built for, and the plugin works in it."""
    built = build_facts().get("openmm", "8.6.1")
    fitting = f"pip install 'openmm>={built},<8.{int(built.split('.')[1]) + 1}'"
    if "version" not in facts:
        reason = facts.get("error") or facts.get(ENDED)
        value = "is not installed" if facts.get("missing") else f"cannot be imported ({reason})"
        return [Finding("OpenMM", "version", value, "fault", fitting)]
    found = [Finding("OpenMM", "version", f"{facts['version']}, platforms {', '.join(facts.get('platforms', []))}")]
    if facts.get("failures"):
        found.append(Finding("OpenMM", "not loaded", unloaded(facts["failures"]), "absent",
                             "install what is missing where you want those platforms; the others work without"))  # fmt: skip
    if minor(facts["version"]) != minor(built):
        value = f"was built for OpenMM {built}"
        return [*found, Finding("OpenMM", "plugin", value, "fault", f"{fitting}, or {AGAIN}")]
    if find_spec("equistride._openmm") is None or missing(OPENMM_PLUGIN):
        lost = OPENMM_PLUGIN if missing(OPENMM_PLUGIN) else "equistride._openmm"
        value = f"{lost} is not in {LIBRARY_DIR if missing(OPENMM_PLUGIN) else LIBRARY_DIR.parent}"
        return [*found, Finding("OpenMM", "plugin", value, "fault", AGAIN)]
    if facts.get("plugin") == "":
        return [*found, Finding("OpenMM", "plugin", "works")]
    reason = facts.get("plugin") or facts.get(ENDED) or "it said nothing"
    mend = AGAIN if torch.get("cpu_edges") == 2 else TORCH_FIRST
    return [*found, Finding("OpenMM", "plugin", f"does not load ({reason})", "fault", mend)]


def unloaded(failures: list[str]) -> str:
    """Return OpenMM's own libraries that did not load, and why the first did not."""
    said = [re.fullmatch(r"Error loading library (\S+): (.*)", " ".join(failure.split())) for failure in failures]
    if not all(said):
        return "; ".join(failures)
    libraries = [Path(found[1]).name for found in said if found]
    return f"{', '.join(libraries)} ({said[0][2] if said[0] else ''})"


def of_lammps(facts: dict[str, Any], torch: dict[str, Any]) -> list[Finding]:
    """Whether LAMMPS's Python package is there and starts, and our styles are in it."""
    if facts.get("missing"):
        return [Finding("lammps", "version", "is not installed", "absent", f"{LAMMPS} where you need it")]
    found = [Finding("lammps", "version", str(facts.get("version", "not known")))]
    if PLUGIN_PATH in os.environ:
        found.append(Finding("lammps", PLUGIN_PATH, f"{os.environ[PLUGIN_PATH]}: plugins there are loaded too"))
    if "world" not in facts:
        reason = str(facts.get("error") or facts.get(ENDED) or "it said nothing")
        lacks_mpi = "libmpi" in reason or not facts.get("library")
        mend = f"its MPI library is missing: {LAMMPS}" if lacks_mpi else f"install it again: {LAMMPS}"
        return [*found, Finding("lammps", "start", f"it does not start ({reason})", "fault", mend)]
    if facts.get("style"):
        return [*found, Finding("lammps", "plugin", "pair_style equistride and fix equistride/propagate are there")]
    if missing(LAMMPS_PLUGIN):
        return [*found, Finding("lammps", "plugin", f"{LIBRARY_DIR / LAMMPS_PLUGIN} is not there", "fault", COMPILE)]
    told = [line for line in str(facts.get(ERRORS, "")).splitlines() if line.strip()]
    refusal = next((line.partition(REFUSAL)[2] for line in told if REFUSAL in line), "")
    reason = refusal.partition("; run `")[0] or (told[-1] if told else facts.get(ENDED) or "LAMMPS said nothing")
    mend = COMPILE if refusal or torch.get("cpu_edges") == 2 else TORCH_FIRST
    return [*found, Finding("lammps", "plugin", f"does not load ({reason})", "fault", mend)]


def of_mpi(lammps: dict[str, Any], launcher: str | None, together: dict[str, Any] | None) -> list[Finding]:
    """Whether two processes of ``mpiexec`` are one world to LAMMPS; ``together`` is None where that was not tried."""
    if lammps.get("missing"):
        return [Finding("mpi", "mpiexec", launcher or "not there", "absent")]
    found = [Finding("mpi", "library", f"{lammps.get('mpi', 'not known')}, {lammps.get('library') or 'of the system'}")]
    if "world" not in lammps:
        return []
    if launcher is None:
        return [*found, Finding("mpi", "mpiexec", "not there: LAMMPS runs on one process", "absent",
                                "pip install mpich, whose MPI LAMMPS's wheel has")]  # fmt: skip
    if together is None:
        return [*found, Finding("mpi", "mpiexec", f"{launcher}: not tried, for this is a process of MPI itself")]
    if together.get("world") == 2:
        return [*found, Finding("mpi", "mpiexec", f"{launcher}: two processes are one world to LAMMPS")]
    if together.get("world") == 1:
        return [*found, Finding("mpi", "mpiexec", f"{launcher} is of another MPI: each process of LAMMPS believes to be alone",
                                "fault", "use the mpiexec of the MPI that LAMMPS has: pip install mpich")]  # fmt: skip
    reason = " ".join([str(together.get("error") or together.get(ENDED) or ""), str(together.get(ERRORS, ""))[-200:]])
    return [*found, Finding("mpi", "mpiexec", f"{launcher} does not run LAMMPS on two processes ({' '.join(reason.split())})",
                            "fault", "try `mpiexec -n 2 hostname`; on a cluster ask its documentation for srun")]  # fmt: skip
