"""Structures and Contexts that the engine tests share."""

from __future__ import annotations

import numpy as np
import openmm
import toy_artifact
from openmm import app, unit

CUBIC = np.diag([9.0, 9.5, 10.0])
TRICLINIC = np.array([[7.0, 0.0, 0.0], [-2.5, 7.2, 0.0], [3.1, -2.9, 6.8]])  # reduced, and narrower than two cutoffs


class Structure:
    """Atoms of H, O and Si at least 1.2 A apart, with OpenMM's topology; positions and box in A."""

    def __init__(self, count: int, box: np.ndarray | None, seed: int = 7) -> None:
        random = np.random.default_rng(seed)
        self.box = box
        span = np.diag([7.0, 7.0, 7.0]) if box is None else box
        images = np.array([[0, 0, 0]]) if box is None else np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3)
        points: list[np.ndarray] = []
        while len(points) < count:
            trial = random.random(3) @ span
            if all(np.linalg.norm(p - trial + images @ span, axis=1).min() > 1.2 for p in points):
                points.append(trial)
        self.positions = np.array(points)
        self.symbols = list(random.choice(toy_artifact.SPECIES, count))
        self.species = np.array([toy_artifact.SPECIES.index(s) for s in self.symbols])
        self.topology = app.Topology()
        residue = self.topology.addResidue("X", self.topology.addChain())
        for i, symbol in enumerate(self.symbols):
            self.topology.addAtom(f"{symbol}{i}", app.Element.getBySymbol(symbol), residue)
        if box is not None:
            self.topology.setPeriodicBoxVectors([openmm.Vec3(*row) for row in box / 10] * unit.nanometer)

    @property
    def unwrapped(self) -> np.ndarray:
        """The same atoms, each in another periodic image [A]."""
        jumps = np.random.default_rng(11).integers(-30, 31, self.positions.shape)
        return self.positions + jumps @ self.box

    def cell(self) -> np.ndarray:
        """The box, zeros where there is none [A]."""
        return np.zeros((3, 3)) if self.box is None else self.box


def context(
    system: openmm.System,
    positions: np.ndarray,
    platform: str = "Reference",
    integrator: openmm.Integrator | None = None,
) -> openmm.Context:
    """Return a Context at positions [n, 3] given in A."""
    integrator = integrator or openmm.VerletIntegrator(0.0005)
    made = openmm.Context(system, integrator, openmm.Platform.getPlatformByName(platform))
    made.setPositions(positions / 10)
    return made


def energy_forces(made: openmm.Context, **options: int) -> tuple[float, np.ndarray]:
    """Return energy [kJ/mol] and forces [n, 3] kJ/mol/nm."""
    state = made.getState(energy=True, forces=True, **options)
    return state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value
