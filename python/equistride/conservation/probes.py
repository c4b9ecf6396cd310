"""Why does a potential not conserve energy? Cheap probes of the artifact itself that tell the known causes apart.

- *Direct forces* are the gradient of no energy: they differ from finite differences, and do work around a closed loop.
- *No envelope*: energy or force jumps as an atom crosses the cutoff, seen on a pair of atoms and along a line in the structure.
- *Neighbour cap*: energy or force jumps where two neighbours of an atom change places in the order of distance.

Jumps are found along straight moves of single atoms, as outliers of the second difference of the energy, and narrowed down by
bisection until a smooth function could not differ any more; what happens in the structure at that place names the cause.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from equistride.artifact.model import Model
from equistride.artifact.structure import Structure, force_deviations, total_energy
from equistride.graph import neighbor_list
from equistride.models.potential import edge_vectors

Array = NDArray[np.float64]
Cause = Literal["direct forces", "no envelope at the cutoff", "neighbour cap", "a jump of unknown cause"]

GRADIENT_BOUND = 1e-5
"""Median deviation of forces from finite differences, of the rms force."""
WORK_BOUND = 1e-6
"""Work around a closed loop, of the work done forth and back."""
ENERGY_JUMP = 1e-6
"""eV: a smooth potential in double precision stays below it by orders of magnitude."""
FORCE_JUMP = 1e-4
"""eV/A."""
WIDTH = 1e-9
"""A: the width to which a jump is narrowed down."""


@dataclass(frozen=True)
class Finding:
    """What one probe found: an error beside its bound, the cause that it shows where it is above, and a remark."""

    name: str
    error: float
    bound: float
    unit: str
    cause: Cause
    remark: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is a number within the bound."""
        return bool(self.error <= self.bound)


@dataclass(frozen=True)
class Jump:
    """A discontinuity along a move: where [A], in energy [eV] and in force [eV/A], and its cause."""

    place: float
    energy: float
    force: float
    cause: Cause
    remark: str

    @property
    def size(self) -> float:
        """Size relative to the bounds; above 1 it counts."""
        return max(self.energy / ENERGY_JUMP, self.force / FORCE_JUMP)


def gradient_finding(model: Model, structure: Structure, samples: int = 12) -> Finding:
    """Compare forces with finite differences; the median tells direct forces from a jump that only some samples meet."""
    deviations = force_deviations(model, structure, samples, 5e-4)
    return Finding(
        "forces against finite differences (median)", float(np.median(deviations)), GRADIENT_BOUND, "of rms force",
        "direct forces",
    )  # fmt: skip


def loop_work(
    model: Model, structure: Structure, *, radius: float = 0.05, points: int = 32, most: int = 1024, seed: int = 5
) -> float:
    """Return the work of the forces around a circle in configuration space, relative to the work forth and back.

    Parameters
    ----------
    model, structure
        In double precision.
    radius
        Rms displacement of a coordinate [A].
    points, most
        Points on the circle, and up to how many. The sum over equally spaced ones converges exponentially for a smooth
        potential, and with the square of their number where forces have kinks, as XPLOR's envelope makes them: they are
        doubled while the work is above ``WORK_BOUND`` and halves by it.
    seed
        Of the plane of the circle.
    """
    u, v = np.random.default_rng(seed).normal(size=(2, *structure.positions.shape)) * radius

    def slope(angle: float) -> float:
        place = structure.positions + np.cos(angle) * u + np.sin(angle) * v
        forces = structure.evaluate(model, positions=place).forces.double().cpu().numpy()
        return float((forces * (np.cos(angle) * v - np.sin(angle) * u)).sum())

    slopes = [slope(2 * np.pi * k / points) for k in range(points)]
    before = np.inf
    while True:
        work = abs(sum(slopes)) / max(sum(map(abs, slopes)), 1e-12)
        if work < WORK_BOUND or work > 0.5 * before or 2 * len(slopes) > most:
            return work
        before, count = work, len(slopes)
        slopes += [slope(2 * np.pi * (k + 0.5) / count) for k in range(count)]


def pair_jump(model: Model, first: int, second: int) -> Jump:
    """Return the jump of a pair of atoms (species indices) alone in space as their distance crosses the cutoff."""
    cutoff = model.metadata.cutoff
    alone = model.metadata.periodic != "required"
    cell = np.zeros((3, 3)) if alone else np.eye(3) * 4 * cutoff
    results = []
    for distance in (cutoff - WIDTH, cutoff + WIDTH):
        positions = np.array([[0.1, 0.2, 0.3], [0.1 + distance, 0.2, 0.3]])
        outputs = model.compute(positions, [first, second], cell, not alone)
        results.append((total_energy(outputs), outputs.forces.double().cpu().numpy()))
    (e1, f1), (e2, f2) = results
    symbols = "-".join(model.metadata.species[k] for k in (first, second))
    return Jump(cutoff, abs(e2 - e1), float(np.abs(f2 - f1).max()), "no envelope at the cutoff", f"pair {symbols}")


def line_jumps(
    model: Model,
    structure: Structure,
    atom: int,
    direction: Array,
    *,
    length: float = 0.15,
    points: int = 61,
    most: int = 3,
) -> tuple[list[Jump], float]:
    """Move one atom along a line and find where the energy jumps.

    Parameters
    ----------
    model, structure
        In double precision.
    atom, direction [3]
        Which atom, and where to.
    length
        Of the line [A].
    points
        Evaluations along it.
    most
        Outliers to narrow down; each takes some 25 evaluations.

    Returns
    -------
    list of Jump
        The largest first; those below the bounds are left out.
    float
        Largest second difference of the energy, relative to the median: near 1 to 10 for a smooth potential.
    """
    direction = direction / np.linalg.norm(direction)

    def moved(s: float) -> Array:
        positions = structure.positions.copy()
        positions[atom] += s * direction
        return positions

    def value(s: float) -> tuple[float, float]:
        outputs = structure.evaluate(model, positions=moved(s))
        return total_energy(outputs), float(outputs.forces[atom].double().cpu().numpy() @ direction)

    places = np.linspace(0.0, length, points)
    energies, forces = np.array([value(s) for s in places]).T
    bends, kinks = np.abs(np.diff(energies, 2)), np.abs(np.diff(forces, 2))
    typical = max(float(np.median(bends)), 1e-10)
    suspects: list[int] = []
    # a jump inside interval k shows in the second differences k - 1 and k
    for series in (bends, kinks):
        floor = 8 * max(float(np.median(series)), 1e-10)
        padded = np.concatenate([[0.0], series, [0.0]])
        strength = np.minimum(padded[:-1], padded[1:])
        order = np.argsort(-strength)[:most]
        suspects += [int(k) for k in order if strength[k] > floor and int(k) not in suspects]
    found = [_narrowed(value, places[k], places[k + 1], model, structure, atom, moved) for k in suspects[: 2 * most]]
    jumps = sorted((jump for jump in found if jump.size > 1), key=lambda jump: -jump.size)
    return jumps, float(bends.max()) / typical


def _narrowed(
    value: Callable[[float], tuple[float, float]],
    low: float,
    high: float,
    model: Model,
    structure: Structure,
    atom: int,
    moved: Callable[[float], Array],
) -> Jump:
    """Bisect an interval towards the largest change that its width does not explain."""
    width = high - low
    before, after = value(low - width), value(high + width)
    ends = value(low), value(high)
    # slopes of energy and force as they are on either side
    slopes = [0.5 * ((ends[0][q] - before[q]) + (after[q] - ends[1][q])) / width for q in range(2)]
    while high - low > WIDTH:
        middle = 0.5 * (low + high)
        at = value(middle)
        rest = [
            max(
                abs(b[q] - a[q] - slopes[q] * 0.5 * (high - low)) / unit
                for q, unit in enumerate((ENERGY_JUMP, FORCE_JUMP))
            )
            for a, b in ((ends[0], at), (at, ends[1]))
        ]
        if rest[0] >= rest[1]:
            high, ends = middle, (ends[0], at)
        else:
            low, ends = middle, (at, ends[1])
        if max(rest) < 1:  # nothing left that would count
            break
    energy, force = (abs(ends[1][q] - ends[0][q] - slopes[q] * (high - low)) for q in range(2))
    cause, remark = _cause(model, replace(structure, positions=moved(0.5 * (low + high))), atom)
    return Jump(0.5 * (low + high), energy, force, cause, remark)


def _cause(model: Model, structure: Structure, atom: int, tolerance: float = 1e-6) -> tuple[Cause, str]:
    """Name what happens in a structure at the place of a jump: a pair at the cutoff, or two neighbours equally far."""
    cutoff = model.metadata.cutoff
    positions = torch.tensor(structure.positions)
    cell = torch.tensor(np.where(structure.pbc[:, None], structure.cell, 0.0))
    edges, shifts = neighbor_list(positions, cell, torch.tensor(structure.pbc), cutoff + 0.1)
    distances = edge_vectors(positions, cell, edges, shifts).norm(dim=1).numpy()
    receivers, senders = edges.numpy()
    touched = (receivers == atom) | (senders == atom)
    if bool((np.abs(distances[touched] - cutoff) < tolerance).any()):
        return "no envelope at the cutoff", f"a neighbour of atom {atom} crosses {cutoff:g} A"
    for receiver in np.unique(receivers[touched]):
        mine = np.sort(distances[(receivers == receiver) & (distances < cutoff)])
        own = distances[(receivers == receiver) & touched & (distances < cutoff)]
        # of the receiver's neighbours the moved atom's images change rank; the receiver's own move changes all
        ties = np.flatnonzero(np.diff(mine) < tolerance)
        for tie in ties:
            if receiver == atom or bool((np.abs(own - mine[tie]) < 2 * tolerance).any()):
                return "neighbour cap", f"at neighbour {tie + 1} and {tie + 2} of {len(mine)} of atom {receiver}"
    return "a jump of unknown cause", f"atom {atom}"


def probe(
    model: Model, structure: Structure, *, lines: int = 3, seed: int = 3, displacement: float = 0.05
) -> list[Finding]:
    """Run all probes on a structure, displaced at random so that no symmetry hides a cause.

    Parameters
    ----------
    model
        In double precision.
    structure
        Its atoms are displaced by ``displacement`` [A] rms along each axis.
    lines
        Lines along which an atom is moved.
    seed
        Of displacements, atoms and directions.

    Returns
    -------
    list of Finding
        Gradient, closed loop, pairs at the cutoff, and one for each cause of jumps along the lines (at least one in all).
    """
    random = np.random.default_rng(seed)
    rattled = replace(
        structure, positions=structure.positions + displacement * random.normal(size=structure.positions.shape)
    )
    gradient = gradient_finding(model, rattled)
    work = loop_work(model, rattled)
    species = range(len(model.metadata.species))
    pair = max(
        (pair_jump(model, a, b) for a, b in combinations_with_replacement(species, 2)), key=lambda jump: jump.size
    )
    jumps: list[Jump] = []
    sharpest = 0.0
    atoms = random.choice(len(structure.species), size=min(lines, len(structure.species)), replace=False)
    for atom in atoms:
        found, bend = line_jumps(model, rattled, int(atom), random.normal(size=3))
        jumps += found
        sharpest = max(sharpest, bend)
    findings = [gradient, _pair_finding(pair)]
    causes = sorted({jump.cause for jump in jumps})
    remark = f"largest second difference {sharpest:.3g} times the median"
    for cause in causes:
        worst = max((jump for jump in jumps if jump.cause == cause), key=lambda jump: jump.size)
        findings.append(_jump_finding("jumps along moves of an atom", worst, f"{worst.remark}; {remark}"))
    if not causes:
        findings.append(
            Finding("jumps along moves of an atom", 0.0, ENERGY_JUMP, "eV", "a jump of unknown cause", remark)
        )
    # a loop that crosses a jump does work as well: it blames direct forces only where nothing jumps
    blame: Cause = "direct forces" if not gradient.passed or not jumps else jumps[0].cause
    return [findings[0], Finding("work around a closed loop", work, WORK_BOUND, "of work done", blame), *findings[1:]]


def _pair_finding(jump: Jump) -> Finding:
    return _jump_finding("jump of a pair at the cutoff", jump, jump.remark)


def _jump_finding(name: str, jump: Jump, remark: str) -> Finding:
    if jump.energy / ENERGY_JUMP >= jump.force / FORCE_JUMP:
        return Finding(f"{name}: energy", jump.energy, ENERGY_JUMP, "eV", jump.cause, remark)
    return Finding(f"{name}: force", jump.force, FORCE_JUMP, "eV/A", jump.cause, remark)
