"""A propagator of several strides: one network, which is told the one to make."""

from itertools import pairwise

import torch
from torch import nn

from equistride.errors import EquistrideError
from equistride.models.propagator import Propagator


class StridesPropagator(Propagator):
    """A propagator that makes any of its strides, the longest until :meth:`set_stride` says otherwise.

    Parameters
    ----------
    network
        As a :class:`Propagator` has it, with ``set_stride(index)``; each stride is in units of its own rms.
    species, masses, cutoff, keep_spin
        As a :class:`Propagator` has them.
    strides_fs
        Times that a call can advance [fs], two or more, the shortest first.
    rms
        For each of them the root mean square of displacements [A] and velocities [A/fs] in training.

    Raises
    ------
    EquistrideError
        Where the strides do not get longer, or there is not one pair of scales for each.
    """

    strides_fs: list[float]
    rms: list[tuple[float, float]]

    def __init__(
        self, network: nn.Module, species: list[str], masses: list[float], cutoff: float, strides_fs: list[float],
        rms: list[tuple[float, float]], *, keep_spin: bool = True,
    ) -> None:  # fmt: skip
        longer = all(a < b for a, b in pairwise([0.0, *strides_fs]))
        if len(strides_fs) < 2 or len(rms) != len(strides_fs) or not longer or min(min(pair) for pair in rms) <= 0.0:
            raise EquistrideError(
                "a propagator of several strides needs two or more, the shortest first, each with its scales",
                expected="positive numbers", found=f"{strides_fs} fs and {rms}",
            )  # fmt: skip
        super().__init__(network, species, masses, cutoff, strides_fs[-1], rms[-1], keep_spin=keep_spin)
        self.strides_fs = [float(stride_fs) for stride_fs in strides_fs]
        self.rms = [(float(moved), float(after)) for moved, after in rms]
        self.set_stride(len(strides_fs) - 1)

    def with_network(self, network: nn.Module) -> "StridesPropagator":
        """Return one that differs in the network alone, at the longest stride."""
        return StridesPropagator(
            network, self.species, self.masses, self.cutoff, self.strides_fs, self.rms, keep_spin=self.keep_spin
        )

    @torch.jit.export
    def set_stride(self, index: int) -> None:
        """Make this one of the strides from now on."""
        self.stride_fs = self.strides_fs[index]
        self.rms_displacement, self.rms_velocity = self.rms[index]
        self.network.set_stride(index)  # type: ignore[operator]
