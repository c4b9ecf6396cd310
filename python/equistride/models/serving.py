"""The form in which an engine runs a trained potential."""

from __future__ import annotations

from torch import nn

from equistride.errors import EquistrideError
from equistride.models.esen_fused import TOLERANCE, FusedESEN, fusable, fuse
from equistride.models.mace import MACE
from equistride.models.nequip import NequIP
from equistride.models.potential import ConservativePotential
from equistride.nn.symmetric_contraction import TabulatedContraction
from equistride.nn.tensor_product import TensorProductConvolution

SPLINED = (NequIP, MACE)
"""Networks whose functions of the bond length become splines."""


def _around(network: nn.Module, potential: ConservativePotential) -> ConservativePotential:
    return ConservativePotential(
        network, potential.species, potential.cutoff, potential.scale, potential.references
    ).train(potential.training)


def serving(potential: ConservativePotential, dtype: str) -> ConservativePotential:
    """Return the potential with its network in fused form where it has one, and as it is where it has none.

    Parameters
    ----------
    potential
        Trained.
    dtype
        Precision in which it will run: in ``"float32"`` splines stand for the radial networks, whose error is far below
        rounding; in ``"float64"`` nothing is approximated.
    """
    network = potential.network
    if isinstance(network, SPLINED):
        if dtype != "float32":
            return _around(network.served(None), potential)
        try:
            return _around(network.served(), potential)
        except EquistrideError:  # too rough for a table of reasonable size: compute it
            return _around(network.served(None), potential)
    if not fusable(network):
        return potential
    return _around(fuse(network, TOLERANCE if dtype == "float32" else None), potential)


def plain(potential: ConservativePotential) -> ConservativePotential:
    """Return the potential with torch's own operators alone."""
    if not isinstance(potential.network, SPLINED):
        return potential
    network = potential.network.served(None)
    for part in network.modules():
        if isinstance(part, TensorProductConvolution | TabulatedContraction):
            part.fused = False
    network.fused = False
    return _around(network, potential)


def fused(potential: ConservativePotential) -> bool:
    """Whether it runs through operators of ours."""
    network = potential.network
    return isinstance(network, FusedESEN) or (isinstance(network, SPLINED) and network.fused)
