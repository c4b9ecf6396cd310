"""What layers of message passing read of the bonds, and the convolution whose weights follow from a bond's length."""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

import torch
from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.nn.radial_table import RadialTable
from equistride.nn.scalar_network import ScalarNetwork
from equistride.nn.tensor_product import TabulatedConvolution, TensorProductConvolution


class Table(Protocol):
    """Splines, and their largest errors as shares of the largest value and slope."""

    error: float
    slope_error: float


Network = TypeVar("Network", bound=Any)


class Bonds(NamedTuple):
    """What every layer reads of the bonds.

    ``ends`` [2, E] receiver and sender; ``lengths`` [E] A; ``harmonics`` [E, (l_max+1)^2]; ``basis`` [E, B] functions of
    the lengths (no columns where all layers have tables); ``pair`` [E] which two elements (no rows where nothing asks). With a
    ``step`` [A] above 0 ``basis`` is given at the :func:`knots` instead, which are so far apart.
    """

    ends: Tensor
    lengths: Tensor
    harmonics: Tensor
    basis: Tensor
    pair: Tensor
    step: float = 0.0


KNOTS: Final = 256
"""Knots of the tables from which the weights of bonds are taken while learning, where there are many more bonds."""


def knots(lengths: Tensor, cutoff: float) -> tuple[Tensor, float]:
    """Return lengths [K] in A at which networks of the bond length are to be evaluated for bonds of ``lengths`` [E], and the
    distance between them; the bonds' own and 0 where these are few, and on a GPU, which has no tables that learn."""
    if lengths.is_cuda or lengths.size(0) < 4 * KNOTS:
        return lengths, 0.0
    step = cutoff / (KNOTS - 3)
    return step * torch.arange(-2, KNOTS, dtype=lengths.dtype), step


def spline_through(values: Tensor, step: float) -> RadialTable:
    """Return a table [K, c] from a function's values [K + 2, c] at the :func:`knots`, off by the fourth power of the step."""
    return RadialTable((8.0 * values[1:-1] - values[:-2] - values[2:]) / 6.0, 0.0, step)


class WeightedConvolution(nn.Module):
    """Messages from the neighbours, weighted by a network of the bond length."""

    def __init__(self, convolution: TensorProductConvolution, widths: list[int]) -> None:
        super().__init__()
        self.convolution = convolution
        self.network = ScalarNetwork([*widths, convolution.weight_numel])

    def forward(self, x: Tensor, bonds: Bonds, num_receivers: int) -> Tensor:
        """Return the sums over neighbours [num_receivers, columns] of features ``x`` [N, columns]."""
        weights = self.network(bonds.basis)
        if not torch.jit.is_scripting() and bonds.step > 0.0:
            tabled = TabledConvolution(self.convolution, spline_through(weights, bonds.step))
            return tabled(x, bonds, num_receivers)
        return self.convolution(x, bonds.harmonics, weights, bonds.ends, num_receivers)


class TabledConvolution(nn.Module):
    """The same with the network replaced by a spline of the bond length, for serving."""

    def __init__(self, convolution: TensorProductConvolution, table: RadialTable) -> None:
        super().__init__()
        self.convolution = TabulatedConvolution(convolution, table)

    def forward(self, x: Tensor, bonds: Bonds, num_receivers: int) -> Tensor:
        """Return the sums over neighbours [num_receivers, columns] of features ``x`` [N, columns]."""
        return self.convolution(x, bonds.harmonics, bonds.lengths, bonds.ends, num_receivers)


SHORTEST: Final = 0.05
"""Where tables begin, as a share of the cutoff: no bond is as short."""
TOLERANCE: Final = 1e-7
"""Largest error of a table, as a share of its largest value: that of forces is then below float32's own. At 3e-7 those of
SevenNet-0 of May 2024, whose weights fall with powers of the length, were off by 3e-5 eV/A."""


def refuse_second_tables() -> NoReturn:
    """Refuse to make tables of a network that has them already."""
    raise EquistrideError("the network has tables already", hint="make them from the network with its own weights")


def splined(
    network: Network, tabulate: Callable[[Network, float, float], Iterable[Table]], tolerance: float | None,
    shortest: float | None,
) -> Network:  # fmt: skip
    """Turn a copy of a network into one for serving, its networks of the bond lengths replaced by splines; return it.

    Parameters
    ----------
    network
        With ``cutoff`` [A], ``embedding``, ``error``, ``slope_error``, ``shortest`` and ``tabled``. It is changed.
    tabulate
        Replaces its networks, float64, by splines that begin at a length [A], to a tolerance; returns these.
    tolerance
        Largest error of a weight, as a share of the largest one of its layer; None keeps the networks.
    shortest
        Shortest bond that the splines cover [A]; shorter ones are refused. A twentieth of the cutoff where not given.

    Raises
    ------
    EquistrideError
        Where the tolerance cannot be reached.
    """
    network.requires_grad_(False)
    if tolerance is None:
        return network
    dtype = network.embedding.weight.dtype
    network.double()
    network.shortest = SHORTEST * network.cutoff if shortest is None else shortest
    with torch.enable_grad():
        for table in tabulate(network, network.shortest, tolerance):
            network.error = max(network.error, table.error)
            network.slope_error = max(network.slope_error, table.slope_error)
    network.tabled = True
    return network.to(dtype)


def refuse_short(r: Tensor, edge_index: Tensor, shortest: float) -> None:
    """Refuse bonds of lengths [E] that are shorter than tables reach [A]."""
    if r.size(0) == 0:
        return
    least = float(r.min())
    if not least >= shortest:
        edge = int(r.argmin())
        i, j = int(edge_index[0, edge]), int(edge_index[1, edge])
        found, limit = int(least * 100), int(shortest * 100)
        raise EquistrideError(
            f"atoms {i} and {j} are {found} pm apart, closer than the model's tables reach; expected {limit} pm or more; "
            + "the simulation has blown up, or the model needs tables that start at a shorter length"
        )
