"""torch, our operators in it, and GPUs: judged by what the probe of torch told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from equistride.doctor.build_facts import OPENMM_CUDA, OPERATORS, build_facts, minor, missing
from equistride.doctor.children import ENDED
from equistride.doctor.finding import Finding
from equistride.doctor.installation import AGAIN

GPU_BUILD = "build a wheel for it: make gpu-wheel"


def of_torch(facts: dict[str, Any]) -> list[Finding]:
    """Whether torch is there, is the one that we were built for, and our operators work in it."""
    built = build_facts()["torch"]
    fitting = f"pip install 'torch=={minor(built)}.*'"
    if "version" not in facts:
        value = "is not installed" if facts.get("missing") else f"cannot be imported ({_reason(facts, 'error')})"
        return [Finding("torch", "version", value, "fault", fitting)]
    version, cuda = str(facts["version"]), facts.get("cuda")
    what = f"{version} ({f'CUDA {cuda}' if cuda else 'CPU alone'}), {facts.get('capability', '?')}"
    if minor(version) != minor(built):
        return [Finding("torch", "version", f"{what}; equistride was built for torch {built}", "fault",
                        f"{fitting}, or {AGAIN}")]  # fmt: skip
    found = [Finding("torch", "version", what)]
    if facts.get("cpu_edges") == 2 and "operators" not in facts:
        return [*found, Finding("torch", "operators", "work")]
    if missing(OPERATORS):
        return found
    return [*found, Finding("torch", "operators", f"do not work ({_reason(facts, 'operators')})", "fault", AGAIN)]


def _reason(facts: dict[str, Any], name: str) -> str:
    """Return why a step of a probe failed: what it told, or how its process ended."""
    return str(facts.get(name) or facts.get(ENDED) or "it said nothing")


def driver_is_there() -> bool:
    """Whether this machine has a GPU of NVIDIA with its driver, whatever torch says."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


def runs_on(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether code for ``compute_80,sm_80,sm_90`` runs on a GPU: ``sm_`` within its major version, ``compute_`` on all newer."""
    fits = []
    for kind, major, least, special in re.findall(r"(sm|compute)_(\d+)(\d)([af]?)", architectures):
        made_for = (int(major), int(least))
        onward = kind == "compute" and not special
        newer = made_for <= capability and (onward or made_for[0] == capability[0])
        fits.append(made_for == capability if special == "a" else newer)
    return any(fits) or not fits  # "native", say, which does not tell


def of_gpu(facts: dict[str, Any], openmm: dict[str, Any]) -> list[Finding]:
    """Whether there are GPUs, and torch, our operators and OpenMM can use them."""
    gpus, built = facts.get("gpus") or [], build_facts()
    if not gpus:
        if not driver_is_there():
            return [Finding("gpu", "devices", "none: all runs on the CPU", "absent")]
        if "version" in facts and facts.get("cuda") is None:
            return [Finding("gpu", "devices", "there is one, and torch was built for the CPU alone", "warning",
                            f"install a torch with CUDA (pytorch.org), then {GPU_BUILD}")]  # fmt: skip
        return [Finding("gpu", "devices", f"there is one that torch cannot use ({_reason(facts, 'gpu_error')})", "warning",
                        "install a driver that is new enough for torch's CUDA, or an older torch")]  # fmt: skip
    found = [
        Finding(
            "gpu",
            f"cuda:{k}",
            f"{g['name']}, sm_{g['capability'][0]}{g['capability'][1]}, {g['memory'] / 2**30:.0f} GiB",
        )
        for k, g in enumerate(gpus)
    ]
    if built["cuda"] == "none":
        return [*found, Finding("gpu", "operators", "equistride was built for the CPU alone", "warning", GPU_BUILD)]
    architectures = built.get("cuda_architectures", "")
    strangers = [
        f"cuda:{k}" for k, g in enumerate(gpus) if architectures and not runs_on(architectures, tuple(g["capability"]))
    ]
    if strangers:
        value = f"not for {', '.join(strangers)}: they were compiled for {architectures}"
        found.append(
            Finding("gpu", "operators", value, "fault", f"{GPU_BUILD}, with CMAKE_CUDA_ARCHITECTURES of this GPU")
        )
    elif facts.get("cuda_edges") != 2:
        found.append(Finding("gpu", "operators", f"do not work ({_reason(facts, 'operators')})", "fault", AGAIN))
    else:
        found.append(Finding("gpu", "operators", "work"))
    if "platforms" not in openmm:
        return found
    if "CUDA" not in openmm["platforms"]:
        wheel = f"openmm-cuda-{built['cuda'].split('.')[0]}"
        found.append(Finding("gpu", "OpenMM", "has no CUDA platform", "warning", f"pip install {wheel}"))
    elif missing(OPENMM_CUDA):
        found.append(Finding("gpu", "OpenMM", "equistride has no kernel for its CUDA platform: data go through the host",
                             "warning", f"install openmm-cuda-{built['cuda'].split('.')[0]}, then {GPU_BUILD}"))  # fmt: skip
    else:
        found.append(Finding("gpu", "OpenMM", "its CUDA platform keeps atoms on the device"))
    return found
