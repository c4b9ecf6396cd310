"""Propagators of random weights, structures with velocities, and the momenta of a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import equistride._library  # noqa: F401  (registers the classes)
from equistride.artifact.propagators import build_propagator
from equistride.graph import neighbor_list
from equistride.models.propagator import Propagator
from equistride.models.strides import StridesPropagator
from equistride.models.trajcast import TrajCastConfig

MASSES = [15.999, 28.085]  # amu
CUTOFF, STRIDE = 4.0, 20.0  # A, fs


class Frame(NamedTuple):
    """Positions [N, 3] A, velocities [N, 3] A/fs, species [N], cell [3, 3] A, and the neighbour list."""

    positions: Tensor
    velocities: Tensor
    species: Tensor
    cell: Tensor
    edge_index: Tensor
    shifts: Tensor

    @property
    def masses(self) -> Tensor:
        """[N, 1] amu."""
        return torch.tensor(MASSES, dtype=torch.float64)[self.species][:, None]

    def momentum(self) -> Tensor:
        """P [3] amu A/fs."""
        return (self.masses * self.velocities.double()).sum(0)

    def centre(self) -> Tensor:
        """Centre of mass [3] A."""
        return (self.masses * self.positions.double()).sum(0) / self.masses.sum()

    def spin(self) -> Tensor:
        """Angular momentum about the centre of mass [3] amu A^2/fs."""
        arms = self.positions.double() - self.centre()
        return torch.linalg.cross(arms, self.masses * self.velocities.double()).sum(0)

    def after(self, displacements: Tensor, velocities: Tensor) -> Frame:
        """The frame after a stride, with the old neighbour list."""
        return self._replace(positions=self.positions + displacements, velocities=velocities)


def frame_of(positions: Tensor, velocities: Tensor, species: Tensor, cell: Tensor | None = None) -> Frame:
    """Return a frame with its neighbour list; periodic along all axes where there is a cell."""
    periodic = cell is not None
    cell = torch.zeros(3, 3).to(positions) if cell is None else cell
    return Frame(positions, velocities, species, cell, *neighbor_list(positions, cell, periodic, CUTOFF))


def cluster(num_atoms: int = 14, seed: int = 0, drift: tuple[float, float, float] = (2e-3, -1e-3, 5e-4)) -> Frame:
    """Return an open cluster in motion, its total momentum not zero."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*[torch.arange(3.0, dtype=torch.float64)] * 3)[:num_atoms] * 1.9
    positions = grid + 0.4 * torch.randn(grid.shape, generator=generator, dtype=torch.float64)
    velocities = (
        0.006 * torch.randn(grid.shape, generator=generator, dtype=torch.float64) + torch.tensor(drift).double()
    )
    return frame_of(positions, velocities, torch.arange(num_atoms) % 2)


def crystal(seed: int = 0) -> Frame:
    """Return 27 atoms in a skewed periodic cell."""
    generator = torch.Generator().manual_seed(seed)
    grid = torch.cartesian_prod(*[torch.arange(3.0, dtype=torch.float64)] * 3)
    cell = 5.4 * torch.tensor([[1.0, 0.0, 0.0], [0.25, 1.05, 0.0], [-0.15, 0.2, 0.95]], dtype=torch.float64)
    positions = (grid + 0.15 * torch.randn(grid.shape, generator=generator, dtype=torch.float64)) / 3 @ cell
    velocities = 0.006 * torch.randn(grid.shape, generator=generator, dtype=torch.float64)
    return frame_of(positions, velocities, torch.arange(27) % 2, cell)


def config(**sizes: object) -> TrajCastConfig:
    """Return a small network's configuration."""
    small = {
        "cutoff": CUTOFF, "max_speed": 0.05, "avg_num_neighbors": 12.0, "num_layers": 2, "channels": 8,
        "radial_widths": (16, 16), "speed_widths": (16,),
    }  # fmt: skip
    return TrajCastConfig.model_validate(small | sizes)


def propagator(seed: int = 0, *, keep_spin: bool = True, **sizes: object) -> Propagator:
    """Return a propagator of random weights in double precision."""
    torch.manual_seed(seed)
    facts = {
        "species": ["O", "Si"], "masses": MASSES, "stride_fs": STRIDE, "rms_displacement": 0.1, "rms_velocity": 0.006,
        "keep_spin": keep_spin,
    }  # fmt: skip
    return build_propagator(config(**sizes), facts).double()


def run_of(path: Path, frame: Frame, thermostat: str, device: str = "cpu", seed: int = 5) -> Any:
    """A run of the frame's atoms at 300 K."""
    elements = [["O", "Si"][k] for k in frame.species.tolist()]
    pbc = torch.tensor([bool(frame.cell.abs().sum() > 0)] * 3)
    made = torch.classes.equistride.Propagation(
        str(path), elements, frame.masses.flatten(), pbc, "none", 300.0, 50.0, seed, device
    )
    made.set_thermostat(thermostat, 300.0, 50.0, 20.0)
    return made


def strides(run: Any, frame: Frame, count: int) -> tuple[Tensor, Tensor]:
    positions, velocities = frame.positions, frame.velocities
    for number in range(count):
        positions, velocities, _ = run.step(positions, velocities, frame.cell.double(), number)
    run.finish()
    return positions.cpu(), velocities.cpu()


STRIDES = [5.0, 10.0, 20.0]  # fs


def several(seed: int = 0, scale: float = 1.0, **sizes: object) -> StridesPropagator:
    """Return a propagator of several strides, of random weights in double precision; ``scale`` multiplies displacements."""
    torch.manual_seed(seed)
    strides = [
        {"stride_fs": stride, "rms_displacement": scale * 0.004 * stride, "rms_velocity": 0.006} for stride in STRIDES
    ]
    facts = {"species": ["O", "Si"], "masses": MASSES, "strides": strides}
    made = build_propagator(config(**sizes), facts).double()
    assert isinstance(made, StridesPropagator)
    return made
