"""Small organic molecules from their bonds: a start structure that a calculator can relax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray

from equistride.errors import EquistrideError

Array = NDArray[np.float64]
_VALENCE = {"C": 4, "N": 3, "O": 2, "F": 1}
_SHORTENING = {1: 1.0, 2: 0.88, 3: 0.79}
"""Length of a double and a triple bond beside a single one."""


@dataclass(frozen=True)
class Molecule:
    """Atoms sorted by descending heaviness class: C, N, O, F, then H.

    ``numbers`` [N], ``positions`` [N, 3] A, ``bonds`` [B, 2] pairs of atoms.
    """

    numbers: NDArray[np.int64]
    positions: Array
    bonds: NDArray[np.int64]


def parse(smiles: str) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Return elements and bonds (atom, atom, order) of a SMILES of C, N, O, F with branches, rings, ``=`` and ``#``.

    Raises
    ------
    EquistrideError
        Where the text has anything else, a ring or branch is open, or an atom has too many bonds.
    """
    elements: list[str] = []
    bonds: list[tuple[int, int, int]] = []
    stack: list[int] = []
    rings: dict[str, int] = {}
    last, order = -1, 1
    for letter in smiles:
        if letter in _VALENCE:
            elements.append(letter)
            if last >= 0:
                bonds.append((last, len(elements) - 1, order))
            last, order = len(elements) - 1, 1
        elif letter in "=#":
            order = "=#".index(letter) + 2
        elif letter == "(":
            stack.append(last)
        elif letter == ")" and stack:
            last = stack.pop()
        elif letter.isdigit() and last >= 0:
            if letter in rings:
                bonds.append((rings.pop(letter), last, order))
                order = 1
            else:
                rings[letter] = last
        else:
            raise EquistrideError(
                f"{smiles!r} has a {letter!r} that is not understood", expected="C, N, O, F, = # ( ) and digits"
            )
    if rings or stack or not elements:
        raise EquistrideError(f"{smiles!r} has an open ring or branch, or no atom", hint="close it")
    for atom, element in enumerate(elements):
        used = sum(n for a, b, n in bonds if atom in (a, b))
        if used > _VALENCE[element]:
            raise EquistrideError(
                f"atom {atom} of {smiles!r} has too many bonds", expected=_VALENCE[element], found=used
            )
    return elements, bonds


def with_hydrogens(
    elements: list[str], bonds: list[tuple[int, int, int]]
) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Fill the valences with hydrogen; atoms are sorted by element, hydrogen last, so that isomers have one order."""
    elements, bonds = list(elements), list(bonds)
    for atom in range(len(elements)):
        free = _VALENCE[elements[atom]] - sum(n for a, b, n in bonds if atom in (a, b))
        for _ in range(free):
            elements.append("H")
            bonds.append((atom, len(elements) - 1, 1))
    order = sorted(range(len(elements)), key=lambda k: (elements[k] == "H", atomic_numbers[elements[k]], k))
    place = {old: new for new, old in enumerate(order)}
    return [elements[k] for k in order], [(place[a], place[b], n) for a, b, n in bonds]


def build(smiles: str, rng: np.random.Generator) -> Molecule:
    """Return a rough structure: bonds and angles by springs, everything else kept apart, from random places.

    Good to some 0.1 A, for a calculator to relax. Which conformer and which hand comes out depends on ``rng``.
    """
    elements, bonds = with_hydrogens(*parse(smiles))
    numbers = np.array([atomic_numbers[e] for e in elements], np.int64)
    count = len(numbers)
    neighbors = [[b if a == k else a for a, b, _ in bonds if k in (a, b)] for k in range(count)]
    target, stiff = np.full((count, count), 0.0), np.zeros((count, count))
    for a, b, n in bonds:
        length = _SHORTENING[n] * (covalent_radii[numbers[a]] + covalent_radii[numbers[b]])
        target[a, b] = target[b, a] = length
        stiff[a, b] = stiff[b, a] = 1.0
    for middle in range(count):
        double = any(middle in (a, b) and n > 1 for a, b, n in bonds)
        angle = np.deg2rad(120.0 if double else 109.5)
        for a in neighbors[middle]:
            for b in neighbors[middle]:
                if a < b and not stiff[a, b]:
                    p, q = target[a, middle], target[middle, b]
                    target[a, b] = target[b, a] = np.sqrt(p * p + q * q - 2 * p * q * np.cos(angle))
                    stiff[a, b] = stiff[b, a] = 0.3
    best: tuple[float, Array] | None = None
    for _ in range(8):
        energy, positions = _settle(target, stiff, rng.normal(size=(count, 3)) * 2.0)
        if best is None or energy < best[0]:
            best = (energy, positions)
    assert best is not None
    molecule = Molecule(numbers, best[1], np.array([(a, b) for a, b, _ in bonds], np.int64))
    if not same_bonds(molecule, molecule.positions):
        raise EquistrideError(f"no structure of {smiles!r} was found", hint="try another seed")
    return molecule


def _settle(target: Array, stiff: Array, positions: Array) -> tuple[float, Array]:
    """Minimise springs and a soft repulsion below 2.6 A of atoms that no spring holds."""
    from scipy.optimize import minimize

    free = (stiff == 0) & ~np.eye(len(target), dtype=bool)

    def cost(flat: Array) -> tuple[float, Array]:
        x = flat.reshape(-1, 3)
        d = x[:, None] - x[None]
        r = np.sqrt((d**2).sum(2) + 1e-9)
        stretch, close = r - target, np.where(free, np.maximum(0.0, 2.6 - r), 0.0)
        energy = 0.5 * (stiff * stretch**2).sum() + 0.05 * (close**2).sum()
        slope = (2 * stiff * stretch - 0.2 * close) / r
        return float(energy), (slope[:, :, None] * d).sum(1).ravel()

    found = minimize(cost, positions.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    return float(found.fun), found.x.reshape(-1, 3)


def same_bonds(molecule: Molecule, positions: Array) -> bool:
    """Return whether exactly the molecule's bonds are there: pairs closer than 1.3 times the sum of their covalent radii."""
    reach = 1.3 * (covalent_radii[molecule.numbers][:, None] + covalent_radii[molecule.numbers][None])
    near = np.linalg.norm(positions[:, None] - positions[None], axis=2) < reach
    found = {(int(a), int(b)) for a, b in np.argwhere(np.triu(near, 1))}
    return found == {(min(a, b), max(a, b)) for a, b in molecule.bonds.tolist()}
