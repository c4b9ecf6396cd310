"""Channels whose sum over all atoms is the total charge, or the number of unpaired electrons.

So UMA 1.2 lets atoms share a charge (fairchem-core, ``charge_balanced_channels``): each atom gives up an equal part of what is
too much. It couples atoms at any distance.
"""

import torch
from torch import Tensor, nn

from equistride.nn.exchange import total


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
    totals: Tensor

    def __init__(self, channels: int, charge: tuple[int, int] | None, spin: tuple[int, int] | None) -> None:
        super().__init__()
        ranges = [one for one in (charge, spin) if one is not None]
        first, last = min(one[0] for one in ranges), max(one[1] for one in ranges)
        self.widths = [first, last + 1 - first, channels - last - 1]
        number = torch.arange(first, last + 1)
        of = [
            torch.zeros(len(number), dtype=torch.bool) if one is None else (number >= one[0]) & (number <= one[1])
            for one in (charge, spin)
        ]
        self.register_buffer("of_charge", (of[0] & ~of[1]).double(), persistent=False)
        self.register_buffer("of_spin", of[1].double(), persistent=False)
        self.register_buffer("totals", torch.tensor([0.0, -1.0], dtype=torch.float64), persistent=False)

    @torch.jit.export
    def set_totals(self, charge: float, spin: float) -> None:
        """Set total charge [e] and spin multiplicity for the calls to come."""
        self.totals[0] = charge
        self.totals[1] = spin - 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return features [n, (l_max+1)^2, C] of own atoms with their scalars shifted."""
        scalars, rest = x.split([1, x.size(1) - 1], 1)
        before, some, after = scalars.split(self.widths, 2)
        some = some.squeeze(1)
        sums, atoms = total(torch.cat([some, torch.ones_like(some[:, :1])], 1)).split([some.size(1), 1])
        excess = (sums - self.of_charge * self.totals[0] - self.of_spin * self.totals[1]) / atoms
        some = some - (excess * (self.of_charge + self.of_spin)).to(x.dtype)
        return torch.cat([torch.cat([before, some[:, None], after], 2), rest], 1)
