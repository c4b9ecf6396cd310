"""The repulsion of nuclei that come close to each other."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equistride.nn.radial import polynomial_envelope

COULOMB = 14.399645
"""e^2 / (4 pi eps0) in eV A, as LAMMPS has it in metal units."""


class Screening(NamedTuple):
    """How electrons screen nuclei: sum of factor * exp(-rate x) with x = (Zi^power + Zj^power) r / length."""

    power: float
    length: float
    terms: tuple[tuple[float, float], ...]


UNIVERSAL = Screening(0.23, 0.46850, ((0.02817, 0.20162), (0.28022, 0.40290), (0.50986, 0.94229), (0.18175, 3.19980)))
"""The constants of LAMMPS's ``pair_style zbl``."""


class NuclearRepulsion(nn.Module):
    """The universal potential of Ziegler, Biersack and Littmark (ZBL) times an envelope, half of it on each atom of a pair.

    ``1/2 k Zi Zj / r psi(x) env(r / cutoff)`` with psi a sum of four exponentials.

    Parameters
    ----------
    numbers
        Atomic number of each element.
    cutoff
        Of the envelope [A].
    exponent
        p of the envelope.
    coulomb
        k [eV A].
    screening
        Constants of psi.
    """

    charges: Tensor
    powers: Tensor
    terms: Tensor

    def __init__(
        self,
        numbers: Sequence[int],
        cutoff: float,
        exponent: int,
        coulomb: float = COULOMB,
        screening: Screening = UNIVERSAL,
    ) -> None:
        super().__init__()
        self.reach, self.exponent, self.coulomb = float(cutoff), exponent, float(coulomb)
        charges = torch.tensor(list(numbers), dtype=torch.float64)
        self.register_buffer("charges", charges, persistent=False)
        self.register_buffer("powers", charges.pow(screening.power) / screening.length, persistent=False)
        self.register_buffer("terms", torch.tensor(screening.terms, dtype=torch.float64), persistent=False)

    def forward(self, r: Tensor, lengths: Tensor, receiver: Tensor, sender: Tensor) -> Tensor:
        """Return the receiver's share [E] of each bond's energy [eV].

        Parameters
        ----------
        r, lengths
            Bond lengths [E], A, and those that the envelope reads.
        receiver, sender
            Species [E].
        """
        charges, powers, terms = self.charges.to(r.dtype), self.powers.to(r.dtype), self.terms.to(r.dtype)
        x = (powers.index_select(0, receiver) + powers.index_select(0, sender)) * r
        psi = torch.matmul(torch.exp(-x[:, None] * terms[:, 1]), terms[:, 0])
        product = charges.index_select(0, receiver) * charges.index_select(0, sender)
        return 0.5 * self.coulomb * product / r * psi * polynomial_envelope(lengths / self.reach, self.exponent)
