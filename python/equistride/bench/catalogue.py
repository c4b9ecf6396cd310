"""The names of the tests: what is measured, and on which system."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from equistride.bench.systems import FILE, smallest, split, standard_systems, title_of
from equistride.errors import EquistrideError

KINDS = {
    "potential": "OpenMM at constant energy",
    "propagator": "strides of TrajCastIntegrator in OpenMM",
    "kernels": "neighbour list, fused convolution and eSEN edge block alone",
}
DEFAULT = ("potential-quartz-576", "propagator-quartz-576", "kernels-quartz-576")


@dataclass(frozen=True)
class Benchmark:
    """A kind of measurement on a system."""

    kind: str
    system: str

    @property
    def name(self) -> str:
        """As on the command line, ``potential-quartz-576`` say."""
        return f"{self.kind}-{self.title}"

    @property
    def title(self) -> str:
        """What tables call the system."""
        return title_of(self.system)

    def smallest(self) -> Benchmark:
        """Return the same on the smallest system of the family."""
        return Benchmark(self.kind, smallest(self.system))


def standard() -> list[Benchmark]:
    """Return what ``--test all`` runs; names with other numbers of atoms may be given too."""
    return [Benchmark(kind, system) for kind in KINDS for system in standard_systems()]


def parse(name: str) -> Benchmark:
    """Return the test of a name.

    Raises
    ------
    EquistrideError
        For a name that is no test's; the sentence has the names that are near.
    """
    kind, _, system = name.partition("-")
    try:
        if kind not in KINDS:
            raise EquistrideError("the kind is not known")
        split(system)
    except EquistrideError as error:
        known = [test.name for test in standard()]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        if kind in KINDS and error.hint != "see --list":
            raise
        raise EquistrideError(
            f"there is no test {name!r}",
            expected=f"{', '.join(near)}" if near else "a kind and a system, as potential-quartz-576",
            hint="equistride bench --list shows them",
        ) from None
    return Benchmark(kind, system)


def on_structure(path: Path, kinds: str | None, kind: str | None) -> list[Benchmark]:
    """Return the tests on a structure of the user's.

    Parameters
    ----------
    path
        Its file.
    kinds
        Comma-separated kinds of tests, or all; None for that of the model, and all without a model.
    kind
        Of the model.
    """
    wanted = [k.strip() for k in kinds.split(",") if k.strip()] if kinds else [kind or "all"]
    wanted = [name for k in wanted for name in (KINDS if k == "all" else [k])]
    unknown = [name for name in wanted if name not in KINDS]
    if unknown:
        raise EquistrideError(
            "on a structure of one's own a test is named by its kind alone",
            expected=", ".join(KINDS),
            found=unknown[0],
            hint="leave out --test, or --structure",
        )
    return [Benchmark(name, f"{FILE}{path.resolve()}") for name in dict.fromkeys(wanted)]


def select(names: str | None) -> list[Benchmark]:
    """Return the tests of a comma-separated list, each once; ``all`` for all, None for a few that take little time."""
    wanted = DEFAULT if names is None else [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise EquistrideError("no test is named", expected="names with commas between, or all")
    tests = [test for name in wanted for test in (standard() if name == "all" else [parse(name)])]
    return list(dict.fromkeys(tests))
