"""All that the doctor looks at, in its order."""

from __future__ import annotations

import os
from collections.abc import Collection

from equistride.doctor.children import Probe
from equistride.doctor.engines import of_lammps, of_mpi, of_openmm
from equistride.doctor.finding import Finding
from equistride.doctor.installation import of_package, of_python
from equistride.doctor.machine import of_compiler, of_disk, of_threads
from equistride.doctor.torch_and_gpu import of_gpu, of_torch
from equistride.errors import EquistrideError
from equistride.lammps.host import mpiexec

NEEDS = ("gpu", "lammps", "mpi", "compiler")
"""Parts that equistride runs without, and that a user may need."""
RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")
"""Variables that processes of an MPI have."""


def examine(needed: Collection[str] = ()) -> list[Finding]:
    """Look at this machine.

    Parameters
    ----------
    needed
        Parts of :data:`NEEDS` that must be there: where they are absent, that is a fault.

    Returns
    -------
    list of Finding
        In the order of the screen. It takes as long as two imports of torch.

    Raises
    ------
    EquistrideError
        For a part that is not one of those.
    """
    unknown = [part for part in needed if part not in NEEDS]
    if unknown:
        raise EquistrideError("the part is not known", expected=" or ".join(NEEDS), found=unknown[0])
    launcher = mpiexec()
    torch, openmm, lammps = Probe("probe_torch"), Probe("probe_openmm"), Probe("probe_lammps")
    inside = any(name in os.environ for name in RANKS)  # an mpiexec below another may wait for ever
    together = Probe("probe_lammps", "together", under=(launcher, "-n", "2")) if launcher and not inside else None
    facts = torch.facts()
    findings = [
        *of_package(), *of_python(), *of_torch(facts), *of_gpu(facts, openmm.facts()), *of_openmm(openmm.facts(), facts),
        *of_lammps(lammps.facts(), facts), *of_mpi(lammps.facts(), launcher, together.facts() if together else None),
        *of_compiler(), *of_threads(facts.get("threads")), *of_disk(),
    ]  # fmt: skip
    return [f._replace(state="fault") if f.state == "absent" and f.part in needed else f for f in findings]
