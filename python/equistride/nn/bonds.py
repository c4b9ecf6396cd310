"""What layers of message passing read of the bonds, and the convolution whose weights follow from a bond's length."""

from typing import NamedTuple

from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.nn.radial_table import RadialTable
from equistride.nn.scalar_network import ScalarNetwork
from equistride.nn.tensor_product import TabulatedConvolution, TensorProductConvolution


class Bonds(NamedTuple):
    """What every layer reads of the bonds.

    ``ends`` [2, E] receiver and sender; ``lengths`` [E] A; ``harmonics`` [E, (l_max+1)^2]; ``basis`` [E, B] functions of
    the lengths (no columns where all layers have tables); ``pair`` [E] which two elements (no rows where nothing asks).
    """

    ends: Tensor
    lengths: Tensor
    harmonics: Tensor
    basis: Tensor
    pair: Tensor


class WeightedConvolution(nn.Module):
    """Messages from the neighbours, weighted by a network of the bond length."""

    def __init__(self, convolution: TensorProductConvolution, widths: list[int]) -> None:
        super().__init__()
        self.convolution = convolution
        self.network = ScalarNetwork([*widths, convolution.weight_numel])

    def forward(self, x: Tensor, bonds: Bonds, num_receivers: int) -> Tensor:
        """Return the sums over neighbours [num_receivers, columns] of features ``x`` [N, columns]."""
        return self.convolution(x, bonds.harmonics, self.network(bonds.basis), bonds.ends, num_receivers)


class TabledConvolution(nn.Module):
    """The same with the network replaced by a spline of the bond length, for serving."""

    def __init__(self, convolution: TensorProductConvolution, table: RadialTable) -> None:
        super().__init__()
        self.convolution = TabulatedConvolution(convolution, table)

    def forward(self, x: Tensor, bonds: Bonds, num_receivers: int) -> Tensor:
        """Return the sums over neighbours [num_receivers, columns] of features ``x`` [N, columns]."""
        return self.convolution(x, bonds.harmonics, bonds.lengths, bonds.ends, num_receivers)


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
