"""Channels whose sum over all atoms is the total charge, or the number of unpaired electrons.

So UMA 1.2 lets atoms share a charge (fairchem-core, ``charge_balanced_channels``): each atom gives up an equal part of what is
too much. It couples atoms at any distance.
"""

import torch
from torch import Tensor, nn


class ChannelBalance(nn.Module):
    """Shift scalars so that their sums over all atoms are given.

    Parameters
    ----------
    channels
        C.
    charge, spin
        First and last of the channels that sum to the total charge [e], and of those that sum to the spin multiplicity less
        one; a channel in both sums to the latter.
    """

    of_charge: Tensor
    of_spin: Tensor
    total: Tensor

    def __init__(self, channels: int, charge: tuple[int, int] | None, spin: tuple[int, int] | None) -> None:
        super().__init__()
        number = torch.arange(channels)
        of = [
            torch.zeros(channels, dtype=torch.bool) if one is None else (number >= one[0]) & (number <= one[1])
            for one in (charge, spin)
        ]
        self.register_buffer("of_charge", (of[0] & ~of[1]).double(), persistent=False)
        self.register_buffer("of_spin", of[1].double(), persistent=False)
        self.register_buffer("total", torch.tensor([0.0, -1.0], dtype=torch.float64), persistent=False)

    @torch.jit.export
    def set_totals(self, charge: float, spin: float) -> None:
        """Set total charge [e] and spin multiplicity for the calls to come."""
        self.total[0] = charge
        self.total[1] = spin - 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return features [N, (l_max+1)^2, C] of all atoms with their scalars shifted."""
        scalars, rest = x.split([1, x.size(1) - 1], 1)
        total = self.of_charge * self.total[0] + self.of_spin * self.total[1]
        excess = (scalars.sum(0, dtype=torch.float64) - total) / x.size(0)
        return torch.cat([scalars - (excess * (self.of_charge + self.of_spin)).to(x.dtype), rest], 1)
