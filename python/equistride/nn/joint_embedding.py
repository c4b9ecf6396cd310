"""What a MACE network knows of a system as a whole: its total charge and its spin.

Each number becomes some scalars, from a table of whole numbers or from a small network; all together are mixed to C and added
to the scalars of every atom at the start.
"""

import torch
from torch import Tensor, nn

from equistride.nn.system import TableNumber


class NetworkNumber(nn.Module):
    """Linear, SiLU, Linear of the number."""

    def __init__(self, width: int, bias: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, width, bias=bias), nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return [..., width] for numbers [..., 1]."""
        return self.second(nn.functional.silu(self.first(x)))


class JointEmbedding(nn.Module):
    """Scalars [C] from the charge and the spin that are set on the module, of which it knows one or both.

    Parameters
    ----------
    channels
        C.
    charge, spin
        Embeds the number; none where the network does not know it.
    widths
        Scalars that these two give, 0 for one that is not there.
    """

    charge: Tensor
    spin: Tensor

    def __init__(
        self, channels: int, charge: nn.Module | None, spin: nn.Module | None, widths: tuple[int, int]
    ) -> None:
        super().__init__()
        self.of_charge, self.of_spin = charge, spin
        self.limits = [_limits(charge), _limits(spin)]
        self.mix = nn.Linear(sum(widths), channels, bias=False)
        self.register_buffer("charge", torch.zeros(1, dtype=torch.float64), persistent=False)
        self.register_buffer("spin", torch.ones(1, dtype=torch.float64), persistent=False)

    @torch.jit.export
    def set_numbers(self, charge: float, spin: float) -> None:
        """Set total charge [e] and spin for the calls to come; one that the network does not know must be 0 or, of spin, 1.

        Raises
        ------
        RuntimeError
            Where a number is outside of a table, or not known.
        """
        names, numbers = ["charge", "spin"], [charge, spin]
        for k, limits in enumerate(self.limits):
            low, high = limits[0], limits[1]
            if not low <= numbers[k] <= high:
                raise RuntimeError(
                    f"the model was not taught this {names[k]}; expected {low} to {high}, found {numbers[k]}"
                )
        self.charge.fill_(charge)
        self.spin.fill_(spin)

    def forward(self) -> Tensor:
        """Return [C]."""
        dtype = self.mix.weight.dtype
        found: list[Tensor] = []
        if self.of_charge is not None:
            found.append(self.of_charge(self.charge.to(dtype)))
        if self.of_spin is not None:
            found.append(self.of_spin(self.spin.to(dtype)))
        return nn.functional.silu(self.mix(torch.cat(found, -1)))


def _limits(number: nn.Module | None) -> list[float]:
    """Return the smallest and the largest number that may be set."""
    if number is None:
        return [0.0, 1.0]
    if isinstance(number, TableNumber):
        return [float(number.lowest), float(number.lowest + number.table.num_embeddings - 1)]
    return [float("-inf"), float("inf")]
