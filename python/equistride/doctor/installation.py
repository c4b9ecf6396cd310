"""equistride itself, Python, and the packages that both need."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from equistride import __version__
from equistride.doctor.build_facts import LIBRARY_DIR, OPERATORS, build_facts, missing
from equistride.doctor.finding import Finding

AGAIN = (
    "install equistride again, from a wheel that fits or, in its sources, by "
    "pip install --no-build-isolation --force-reinstall --no-deps ."
)
TRUST, SIMD = "EQUISTRIDE_TRUST_COMPILED", "EQUISTRIDE_SIMD"
OWN_PARTS = ("torch", "openmm")
"""Packages that the doctor looks at by themselves."""
FOR_DEVELOPERS = ("test", "dev", "docs")


def of_package() -> list[Finding]:
    """Version, place, what it was built for, and variables of the environment that change what it does."""
    facts = build_facts()
    found = [Finding("equistride", "version", f"{__version__} in {LIBRARY_DIR.parent}")]
    cuda = (
        "for the CPU alone"
        if facts["cuda"] == "none"
        else f"CUDA {facts['cuda']}: {facts.get('cuda_architectures', '?')}"
    )
    others = [f"{name} {facts[key]}" for key, name in (("openmm", "OpenMM"), ("lammps", "LAMMPS")) if key in facts]
    by = [f"by {facts['compiler']}"] if "compiler" in facts else []
    found.append(Finding("equistride", "built for", ", ".join([f"torch {facts['torch']} ({cuda})", *others, *by])))
    sets = facts.get("instruction_sets", "not known")
    found.append(Finding("equistride", "loops", f"{sets}; this processor runs {instruction_set()}"))
    if missing(OPERATORS):
        found.append(Finding("equistride", "operators", f"{LIBRARY_DIR / OPERATORS} is not there", "fault", AGAIN))
    if SIMD in os.environ:
        found.append(Finding("equistride", SIMD, os.environ[SIMD], "warning", "unset it, and the processor chooses"))
    if TRUST in os.environ:
        found.append(Finding("equistride", TRUST, os.environ[TRUST], "warning",
                             "unset it, and give the word for single files: compiled artifacts are machine code"))  # fmt: skip
    return found


def instruction_set() -> str:
    """Return the best set of the processor, of those that our loops are compiled for, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "those that it has"
    flags = next((set(line.split(":")[1].split()) for line in lines if line.startswith("flags")), set())
    if {"avx512f", "avx512bw", "avx512dq", "avx512vl", "bmi2"} <= flags:
        return "avx512"
    return "avx2" if {"avx2", "fma"} <= flags else "portable"


class Need(NamedTuple):
    """A package that ours asks for: name, ``name>=version``, the extra that it belongs to, and what is there."""

    name: str
    asked: str
    extra: str
    there: str
    fits: bool


def needs() -> list[Need]:
    """Return what our package's own metadata ask for, compared with what is installed; nothing where neither can be read."""
    try:
        from packaging.requirements import Requirement

        asked = [Requirement(text) for text in metadata.requires("equistride") or []]
        extras = metadata.metadata("equistride").get_all("Provides-Extra") or []
    except (ImportError, metadata.PackageNotFoundError):
        return []
    found = []
    for requirement in asked:
        owners = [e for e in extras if requirement.marker is not None and requirement.marker.evaluate({"extra": e})]
        if requirement.marker is not None and not owners and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            there = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            there = ""
        fits = bool(there) and requirement.specifier.contains(there, prereleases=True)
        text = f"{requirement.name}{requirement.specifier}"
        found += [Need(requirement.name, text, extra, there, fits) for extra in owners or [""]]
    return found


def of_python() -> list[Finding]:
    """Python, packages that must be there, and those of the extras."""
    found = [Finding("Python", "version", f"{platform.python_version()} at {sys.executable}")]
    found[0] = found[0]._replace(value=f"{found[0].value}, {platform.platform(terse=True)}")
    needed = needs()
    if not needed:
        return [*found, Finding("Python", "packages", "what equistride needs is not known", "warning",
                                "install equistride and packaging with pip")]  # fmt: skip
    must = [n for n in needed if not n.extra and n.name not in OWN_PARTS]
    found.append(Finding("Python", "packages", ", ".join(f"{n.name} {n.there}" for n in must if n.fits)))
    for n in must:
        if not n.fits:
            value = f"{n.there} does not fit, expected {n.asked}" if n.there else "is not installed"
            found.append(Finding("Python", n.name, value, "fault", f"pip install '{n.asked}'"))
    extras = dict.fromkeys(n.extra for n in needed if n.extra and n.extra not in FOR_DEVELOPERS)
    lacking = {e: [n.name for n in needed if n.extra == e and not n.fits] for e in extras}
    whole = [extra for extra, names in lacking.items() if not names]
    found.append(Finding("Python", "extras", ", ".join(whole) or "none"))
    absent = [f"{extra} ({', '.join(names)})" for extra, names in lacking.items() if names]
    if absent:
        found.append(Finding("Python", "no extras", ", ".join(absent), "absent",
                             "pip install 'equistride[NAME]' where you need one"))  # fmt: skip
    return found
