"""From a network's raw output to a stride that keeps momentum: the contract of every propagator."""

import torch
from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.models.potential import edge_vectors

LINEAR = 1e-4
"""A principal moment of inertia below this share of the largest belongs to an axis on which all atoms lie (within 0.01 of the
molecule's half-length): rotation about it cannot be set by moving atoms, and is left alone."""
POINT = 1e-6
"""Moment of inertia [amu A^2] that counts as none: a single atom."""


def _sum(values: Tensor, frame: Tensor, num_frames: int) -> Tensor:
    """Return the sums over the atoms of each frame: [N, ...] to [B, ...]."""
    shape = [num_frames] + list(values.shape)[1:]  # noqa: RUF005 (TorchScript has no unpacking)
    out = torch.zeros(shape, dtype=values.dtype, device=values.device)
    return out.index_add(0, frame, values)


def angular_momentum(arms: Tensor, velocities: Tensor, masses: Tensor, frame: Tensor, num_frames: int) -> Tensor:
    """Return L [B, 3] in amu A^2/fs, of ``arms`` [N, 3] (A, from the centre of mass), ``velocities`` and ``masses`` [N, 1]."""
    return _sum(torch.linalg.cross(arms, masses * velocities), frame, num_frames)


def angular_velocity(
    arms: Tensor,
    masses: Tensor,
    missing: Tensor,
    frame: Tensor,
    num_frames: int,
    linear: float = LINEAR,
    point: float = POINT,
) -> Tensor:
    """Return omega [B, 3] (1/fs) so that velocities omega x arms have the angular momentum ``missing`` [B, 3].

    That is I^-1 L on the axes about which the atoms can turn; for an atom, or about the axis of a linear molecule, omega is zero.
    """
    square = arms.square().sum(1)[:, None, None]
    identity = torch.eye(3, dtype=arms.dtype, device=arms.device)
    inertia = _sum(masses[:, :, None] * (square * identity - arms[:, :, None] * arms[:, None, :]), frame, num_frames)
    moments, axes = torch.linalg.eigh(inertia.detach())
    largest = moments[:, 2:].clamp(min=point)
    free = (moments > linear * largest).to(arms.dtype)
    stuck = axes * (1.0 - free)[:, None, :]
    onto_stuck = torch.matmul(stuck, axes.transpose(1, 2))
    # a solve, not the eigenvectors: its gradient is finite where two moments are equal
    regular = inertia + onto_stuck * largest[:, :, None]
    wanted = missing - torch.matmul(onto_stuck, missing[:, :, None])[:, :, 0]
    omega = torch.linalg.solve(regular, wanted[:, :, None])[:, :, 0]
    return omega - torch.matmul(onto_stuck, omega[:, :, None])[:, :, 0]


def conserve(
    positions: Tensor, displacements: Tensor, velocities: Tensor, masses: Tensor, momentum: Tensor, spin: Tensor,
    open_frames: Tensor, stride_fs: float, frame: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return displacements and velocities [N, 3] with the given momenta.

    The centre of mass moves by P dt / M; the velocities' total momentum is P. In open frames the angular momentum about
    the centre of mass of the new positions is L, by adding omega x q to the velocities.

    Parameters
    ----------
    positions, displacements, velocities [N, 3]
        Before the stride (A), over it (A), after it (A/fs); float64.
    masses [N, 1]
        amu.
    momentum, spin [B, 3]
        P in amu A/fs and L in amu A^2/fs of each frame.
    open_frames [B]
        1 where L is kept, 0 where not.
    stride_fs
        dt.
    frame [N]
        Which frame an atom belongs to.
    """
    num_frames = momentum.size(0)
    total = _sum(masses, frame, num_frames)
    drift = momentum / total
    centre = _sum(masses * displacements, frame, num_frames) / total
    displacements = displacements + (drift * stride_fs - centre).index_select(0, frame)
    velocities = velocities + (drift - _sum(masses * velocities, frame, num_frames) / total).index_select(0, frame)
    after = positions + displacements
    arms = after - (_sum(masses * after, frame, num_frames) / total).index_select(0, frame)
    missing = (spin - angular_momentum(arms, velocities, masses, frame, num_frames)) * open_frames[:, None]
    omega = angular_velocity(arms, masses, missing, frame, num_frames)
    return displacements, velocities + torch.linalg.cross(omega.index_select(0, frame), arms)


class Propagator(nn.Module):
    """A network that advances atoms by one stride and keeps what mechanics keeps.

    The total momentum after the stride is that before it, and the centre of mass moves accordingly. In a system
    without a cell the angular momentum about the centre of mass is kept too. Both in double precision, whatever the network's.

    Parameters
    ----------
    network
        Module with ``forward(vectors [E, 3], velocities [N, 3], species [N], edge_index [2, E]) -> [N, 2, 3]``:
        displacement and new velocity in units of ``rms``.
    species
        Element symbols, in the order of the species index.
    masses
        amu, one an element: those of the training data, which the stride is valid for alone.
    cutoff
        Cutoff radius [A].
    stride_fs
        Time that one call advances [fs].
    rms
        Root mean square of displacements [A] and velocities [A/fs] in training.
    keep_spin
        Keep the angular momentum of systems without a cell.
    """

    masses: list[float]
    unit: Tensor

    def __init__(
        self, network: nn.Module, species: list[str], masses: list[float], cutoff: float, stride_fs: float,
        rms: tuple[float, float], *, keep_spin: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if len(masses) != len(species):
            raise EquistrideError("each element needs one mass", expected=len(species), found=len(masses))
        for what, values in (("mass", masses), ("stride", [stride_fs]), ("scale", rms)):
            if not all(0.0 < value < float("inf") for value in values):
                raise EquistrideError(
                    f"a propagator needs a {what} above 0", expected="positive numbers", found=list(values)
                )
        self.network = network
        self.species, self.cutoff, self.stride_fs = species, float(cutoff), float(stride_fs)
        # attributes, not buffers: they stay in double precision when the network is converted
        self.masses = [float(m) for m in masses]
        self.rms_displacement, self.rms_velocity = float(rms[0]), float(rms[1])
        self.keep_spin = keep_spin
        self.register_buffer("unit", torch.ones(()), persistent=False)  # has the precision of the network

    def with_network(self, network: nn.Module) -> "Propagator":
        """Return one that differs in the network alone."""
        rms = (self.rms_displacement, self.rms_velocity)
        return Propagator(
            network, self.species, self.masses, self.cutoff, self.stride_fs, rms, keep_spin=self.keep_spin
        )

    def free_stride(
        self, velocities: Tensor, species: Tensor, vectors: Tensor, edge_index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return displacements (A) and velocities (A/fs) as the network gives them, momenta not yet kept; [N, 3], float64.

        An engine that divides the atoms among processes calls this, and keeps the momentum of them all itself.
        """
        raw = self.network(vectors, velocities.to(vectors.dtype), species, edge_index).double()
        displacements, after = raw.unbind(1)
        return displacements * self.rms_displacement, after * self.rms_velocity

    def stride(
        self,
        positions: Tensor,
        velocities: Tensor,
        species: Tensor,
        vectors: Tensor,
        edge_index: Tensor,
        frame: Tensor,
        open_frames: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return displacements [N, 3] (A) and new velocities [N, 3] (A/fs) of many frames at once, float64, differentiable.

        Parameters
        ----------
        positions, velocities [N, 3], species [N]
            A, A/fs, element indices: the atoms of all frames in a row.
        vectors [E, 3], edge_index [2, E]
            r_sender - r_receiver (A) and the ends of the edges; atoms of different frames share none.
        frame [N], open_frames [B]
            Frame of each atom; which frames have no cell.
        """
        displacements, after = self.free_stride(velocities, species, vectors, edge_index)
        return self.keep(positions, velocities, species, displacements, after, frame, open_frames)

    def keep(
        self,
        positions: Tensor,
        velocities: Tensor,
        species: Tensor,
        displacements: Tensor,
        after: Tensor,
        frame: Tensor,
        open_frames: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return the displacements and velocities ``after`` [N, 3] of :meth:`free_stride` with momenta kept; other arguments as
        for :meth:`stride`."""
        positions, velocities = positions.double(), velocities.double()
        # not torch.tensor(list), which TorchScript rounds to single precision
        table = torch.stack(
            [torch.full((), mass, dtype=torch.float64, device=positions.device) for mass in self.masses]
        )
        masses = table.index_select(0, species)[:, None]
        num_frames = open_frames.size(0)
        momentum = _sum(masses * velocities, frame, num_frames)
        total = _sum(masses, frame, num_frames)
        arms = positions - (_sum(masses * positions, frame, num_frames) / total).index_select(0, frame)
        spin = angular_momentum(arms, velocities, masses, frame, num_frames)
        kept = open_frames.double() if self.keep_spin else torch.zeros_like(spin[:, 0])
        return conserve(positions, displacements, after, masses, momentum, spin, kept, self.stride_fs, frame)

    def forward(
        self, positions: Tensor, velocities: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return displacements [N, 3] (A) and new velocities [N, 3] (A/fs), float64, without gradients.

        Parameters
        ----------
        positions [N, 3], velocities [N, 3]
            A, A/fs. They may be in higher precision than the network; then momenta are kept to that.
        species [N]
            int64 indices into the species list.
        cell [3, 3]
            A; zeros where there is none.
        edge_index [2, E], shifts [E, 3]
            Neighbour list: receiver, sender; whole lattice vectors from the one to the other. Sorted by receiver.

        Raises
        ------
        EquistrideError
            Where an atom is faster than the model covers (a ``RuntimeError`` from TorchScript).
        """
        with torch.no_grad():
            vectors = edge_vectors(positions, cell, edge_index, shifts).to(self.unit.dtype)
            frame = torch.zeros_like(species)
            open_frames = (cell == 0).all().reshape(1)
            return self.stride(positions, velocities, species, vectors, edge_index, frame, open_frames)
