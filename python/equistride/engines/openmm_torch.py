"""The genuine openmm-torch, where it was built for the torch that runs.

A plugin built for another torch may well be loaded and then fail, or give wrong numbers, at the first call.
So what counts is the version that it was built for: what its conda package or its wheel pins, or the table
below.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import re
import sys
import tempfile
from pathlib import Path

import openmm
import torch
from openmm import app

from equistride.errors import EquistrideError

BUILT_FOR = {"1.5": "2.9"}
"""Version of PyPI's ``openmmtorch`` -> minor version of torch that it was built for (it pins none)."""


def _minor(version: str) -> str:
    return ".".join(re.split(r"[.+]", version)[:2])


def _pinned(requirements: list[str], name: str) -> str | None:
    """Return the minor version that requirements like ``torch==2.9.*`` or ``pytorch >=2.9,<2.10`` pin."""
    for requirement in requirements:
        if re.match(rf"{name}(?![\w-])", requirement):
            exact = re.search(r"(?:==?|~=|\s|>=)\s*(\d+\.\d+)", requirement)
            if exact and ("<" in requirement or ">=" not in requirement):
                return exact.group(1)
    return None


def built_for() -> str | None:
    """Return the minor version of torch that openmm-torch was built for; None where it is not recorded."""
    for record in sorted(Path(sys.prefix, "conda-meta").glob("openmm-torch-*.json")):
        depends = json.loads(record.read_text()).get("depends", [])
        found = _pinned(depends, "libtorch") or _pinned(depends, "pytorch")
        if found:
            return found
    try:
        wheel = importlib.metadata.distribution("openmmtorch")
    except importlib.metadata.PackageNotFoundError:
        return None
    return _pinned(wheel.requires or [], "torch") or BUILT_FOR.get(wheel.version)


def why_not() -> str | None:
    """Return why openmm-torch cannot be used here, or None where it can."""
    if importlib.util.find_spec("openmmtorch") is None:
        return "it is not installed"
    built, running = built_for(), _minor(torch.__version__)
    if built is None:
        return "it does not record which torch it was built for"
    if built != running:
        return f"it was built for torch {built}, and this is torch {torch.__version__}"
    try:
        importlib.import_module("openmmtorch")
        _load_missed_plugins()
    except Exception as error:
        return f"it was built for this torch but does not import ({error})"
    return None


def _load_missed_plugins() -> None:
    """Load openmm-torch's plugins that OpenMM missed: they link CUDA libraries that only torch brings."""
    for failure in openmm.Platform.getPluginLoadFailures():
        missed = re.search(r"(\S+libOpenMMTorch(?:Reference|CPU|CUDA)\.so)", failure)
        if missed:
            openmm.Platform.loadPluginLibrary(missed.group(1))


def usable() -> bool:
    """Tell whether openmm-torch is installed and was built for the torch that runs."""
    return why_not() is None


def torch_force(
    path: Path, topology: app.Topology, atoms: list[int], periodic: bool | None, dtype: str | None
) -> openmm.Force:
    """Return openmm-torch's own TorchForce for an artifact.

    Parameters
    ----------
    path, topology, atoms, periodic
        As for ``equistride.engines.openmm.create_force``.
    dtype
        ``float32``, ``float64``, or None for the artifact's own.

    Raises
    ------
    EquistrideError
        As ``write_torchforce``, and where openmm-torch cannot be used here.
    """
    from equistride.engines.openmm_export import write_torchforce

    reason = why_not()
    if reason is not None:
        raise EquistrideError(f"openmm-torch cannot run here: {reason}", hint="use backend='plugin'")
    openmmtorch = importlib.import_module("openmmtorch")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "torchforce.pt"
        box = write_torchforce(path, file, topology, atoms=atoms, periodic=periodic, dtype=dtype)
        force = openmmtorch.TorchForce(str(file))
    force.setOutputsForces(True)
    force.setUsesPeriodicBoundaryConditions(box)
    return force
