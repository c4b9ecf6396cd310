"""How a run of the benchmark is made, as the command line gives it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from equistride.artifact.metadata import precision_name
from equistride.errors import EquistrideError

Precision = Literal["float32", "float64"]


@dataclass(frozen=True)
class Settings:
    """What the tests of a run have in common.

    Parameters
    ----------
    platform
        OpenMM's platform; None for CUDA where OpenMM and torch both have it, else CPU.
    precision
        Of the network, ``float32`` or ``float64``; None for that of the artifact.
    seconds
        Time to spend on the steps of a test [s]; at least a few steps are run, however long they take.
    device
        Number of the GPU; None for the first where the platform runs on one.
    threads
        Threads of torch and of OpenMM's CPU platform.
    artifact
        Model of the tests; None for the released ones, and random weights where there is none.
    random
        Random weights of the published architectures everywhere.
    peers
        Run other programs on the same atoms.
    peer_pythons
        Pythons of environments in which they may be installed; each peer runs in the first that has it.
    seed
        Of velocities and thermostat.
    """

    platform: str | None = None
    precision: Precision | None = None
    seconds: float = 10.0
    device: int | None = None
    threads: int = 1
    artifact: str | None = None
    random: bool = False
    peers: bool = False
    peer_pythons: list[str] = field(default_factory=list)
    seed: int = 1

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise EquistrideError("the time of a test must be above 0 s", found=self.seconds, hint="give --seconds 10")
        object.__setattr__(self, "precision", precision_name(self.precision))
        if self.threads < 1:
            raise EquistrideError("the number of threads must be 1 or more", found=self.threads)
        if self.artifact is not None and not Path(self.artifact).is_file():
            raise EquistrideError(f"the artifact {self.artifact} does not exist", hint="check the path")
        if self.artifact is not None and self.random:
            raise EquistrideError(
                "an artifact and random weights cannot both be asked for", hint="leave out --artifact or --random"
            )
        for python in self.peer_pythons:
            if not os.access(python, os.X_OK):
                raise EquistrideError(f"the Python of the peers, {python}, cannot be run", hint="check --peer-python")
        if self.device is not None and self.device >= torch.cuda.device_count():
            raise EquistrideError(
                f"there is no GPU {self.device}",
                expected=f"0 to {torch.cuda.device_count() - 1}" if torch.cuda.is_available() else "a GPU",
                found=f"{torch.cuda.device_count()} that torch sees",
                hint="leave out --device",
            )

    def summary(self) -> dict[str, Any]:
        """Return plain types for JSON; ``Settings(**summary)`` is the same again."""
        return asdict(self)

    def platform_name(self) -> str:
        """Return the name of OpenMM's platform.

        Raises
        ------
        EquistrideError
            Where OpenMM has no such platform here.
        """
        import openmm

        there = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
        if self.platform is None:
            return "CUDA" if "CUDA" in there and torch.cuda.is_available() else "CPU"
        if self.platform not in there:
            failures = openmm.Platform.getPluginLoadFailures()
            reason = f" ({failures[0]})" if failures and self.platform in ("CUDA", "OpenCL", "HIP") else ""
            raise EquistrideError(
                f"OpenMM has no platform {self.platform} here{reason}",
                expected=" or ".join(there),
                found=self.platform,
                hint="install it (pip install openmm-cuda-13 for CUDA), or choose another --platform",
            )
        return self.platform

    def torch_device(self) -> str:
        """Return where networks run: the GPU where the platform or the user wants one and torch sees it, else the CPU."""
        wanted = self.device is not None or self.platform_name() in ("CUDA", "OpenCL", "HIP")
        return f"cuda:{self.device or 0}" if wanted and torch.cuda.is_available() else "cpu"

    def platform_properties(self) -> dict[str, str]:
        """Return the properties of OpenMM's platform: threads, device, precision."""
        name = self.platform_name()
        if name == "CPU":
            return {"Threads": str(self.threads)}
        if name == "Reference":
            return {}
        precision = {None: "mixed", "float32": "single", "float64": "double"}[self.precision]
        return {"DeviceIndex": str(self.device or 0), "Precision": precision}


def dtype_of(precision: Precision | None, default: str) -> torch.dtype:
    """Return the network's type: that of the precision, or the one that an artifact names (``float32``, ``float64``)."""
    return torch.float64 if (precision or default) == "float64" else torch.float32
