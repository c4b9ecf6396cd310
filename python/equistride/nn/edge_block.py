"""The eSEN edge block for serving: one native operator from node features to summed messages.

For weights that are frozen. The operator takes chunks of edges that stay in cache, or in a GPU's shared memory, through gather,
rotation into the bond frame, radial weights, two SO(2) layers with a gate between, rotation back and sum; the plain version of
the same is :class:`equistride.models.esen.EdgewiseConvolution`. First gradients only, to the features and the bonds.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

import equistride._library  # noqa: F401  (loads torch.ops.equistride)
from equistride.errors import EquistrideError
from equistride.nn.radial_table import QuinticTable, fewest_intervals
from equistride.nn.so2 import SO2Convolution

__all__ = ["Bonds", "EdgeBlock", "RadialSplines", "bond_lengths", "pack"]


class Bonds(NamedTuple):
    """What every block reads of the bonds.

    ``vectors`` [E, 3] sender - receiver, A; ``frames`` [E, ...] what ``torch.ops.equistride.bond_frames`` makes of them;
    ``envelope`` [E]; ``edge_index`` [2, E] receivers and senders, sorted by receiver.
    """

    vectors: Tensor
    frames: Tensor
    envelope: Tensor
    edge_index: Tensor


def bond_lengths(vectors: Tensor, cutoff: float, exponent: int) -> tuple[Tensor, Tensor]:
    """Return lengths [E] in A and envelopes [E] of bonds [E, 3], in one operator.

    Parameters
    ----------
    cutoff, exponent
        Of :func:`~equistride.nn.radial.polynomial_envelope`; with exponent 0 envelopes are one.
    """
    return torch.ops.equistride.bond_lengths(vectors, cutoff, exponent)


def pack(first: SO2Convolution, second: SO2Convolution, radial: nn.Linear) -> Tensor:
    """Return all matrices of a block as the kernels of this build read them, [numbers].

    Parameters
    ----------
    first, second
        The layers before and after the gate.
    radial
        The last layer of the radial network, which gives the weights of the first layer's input.
    """
    mirror = first.mirror and second.mirror
    return torch.ops.equistride.edge_block_pack(radial.weight, radial.bias, first.weights(), second.weights(), mirror)


class EdgeBlock(nn.Module):
    """The fused block with frozen weights, which it has once ``weights`` is what :func:`pack` returns.

    Parameters
    ----------
    first, second
        Layers as for :func:`pack`.
    m_max
        Highest order in the bond frame.
    keep
        Bytes of what lies between the layers that the forward may keep for the backward, with 24 GiB of memory or more; in
        proportion with less. The rest is computed again, which takes two thirds longer.

    Raises
    ------
    EquistrideError
        Where the layers are no gated block of mirrored or general order layers.
    """

    weights: Tensor

    def __init__(self, first: SO2Convolution, second: SO2Convolution, m_max: int, keep: int = 1 << 30) -> None:
        super().__init__()
        self.l_max, self.m_max, self.keep = first.l_max, m_max, keep
        self.hidden_channels = first.channels_out
        if first.num_gates != self.l_max * self.hidden_channels:
            raise EquistrideError(
                "the edge block cannot be fused",
                expected=f"{self.l_max * self.hidden_channels} gates",
                found=first.num_gates,
                hint="serve this network in plain torch",
            )
        self.mirror = first.mirror and second.mirror
        self.register_buffer("weights", torch.empty(0), persistent=False)

    def forward(self, x: Tensor, bonds: Bonds, hidden: Tensor) -> Tensor:
        """Return the summed messages [N, (l_max+1)^2, C].

        Parameters
        ----------
        x [N, (l_max+1)^2, C]
            Features, float32 or float64.
        bonds
            Geometry, of the same type.
        hidden [E, channels]
            Input of the last radial layer.

        Raises
        ------
        ValueError, TypeError, IndexError
            Where shapes or types do not fit, edges are not sorted, or an edge names an atom that is not there.
        """
        keep = self.keep if x.requires_grad or bonds.vectors.requires_grad else 0
        out, _ = torch.ops.equistride.edge_block(
            x,
            bonds.vectors,
            bonds.frames,
            bonds.envelope,
            hidden,
            bonds.edge_index,
            self.weights,
            self.l_max,
            self.m_max,
            self.hidden_channels,
            self.mirror,
            keep,
        )
        return out


MOST_INTERVALS: Final = 1024
"""Of a radial function's splines."""


class RadialSplines(nn.Module):
    """Functions of length, one for each kind of pair, as splines of degree five (C2) in one native operator.

    Parameters
    ----------
    tables
        [pairs, intervals, terms, columns]: the polynomial of each interval by its powers, the constant first; a slope from
        B-spline coefficients would lose three digits in float32.
    start, step
        First knot and distance of the knots [A]; beyond the ends the first and the last polynomial go on.
    error, slope_error
        As in :class:`~equistride.nn.radial_table.RadialTable`.
    """

    tables: Tensor

    def __init__(self, tables: Tensor, start: float, step: float, error: float, slope_error: float) -> None:
        super().__init__()
        self.register_buffer("tables", tables)
        self.start, self.step, self.error, self.slope_error = start, step, error, slope_error

    @classmethod
    def tabulate(
        cls, function: Callable[[Tensor, Tensor], Tensor], pairs: int, start: float, stop: float, tolerance: float
    ) -> "RadialSplines":
        """Tabulate ``function(lengths [K], pair [K]) -> [K, columns]`` for all pairs, with the same knots.

        Arguments and errors as for :func:`~equistride.nn.radial_table.fewest_intervals`; the error is relative to the largest
        value of all pairs.
        """

        def all_pairs(lengths: Tensor) -> Tensor:
            kinds = (torch.full([lengths.size(0)], kind) for kind in range(pairs))
            return torch.cat([function(lengths, kind) for kind in kinds], 1)

        table = fewest_intervals(QuinticTable, all_pairs, start, stop, tolerance, MOST_INTERVALS)
        tables = table.powers.unflatten(2, (pairs, -1)).permute(2, 0, 1, 3).contiguous()
        return cls(tables, table.start, table.step, table.error, table.slope_error)

    def forward(self, lengths: Tensor, pair: Tensor) -> Tensor:
        """Return the values [E, columns] for lengths [E] in A and kinds of pairs [E] (int64)."""
        return torch.ops.equistride.radial_splines(lengths, pair, self.tables, self.start, self.step)
