"""Scalars of a velocity and of a bond length, as TrajCast encodes them."""

import math

import torch
from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.nn.packing import Packed
from equistride.nn.radial import polynomial_envelope


class SpeedBasis(Packed):
    """Gaussians of the speed, mixed with the element.

    With n Gaussians, h = v_max / (n + 1) and speed s::

        G_k = sqrt(n) / 1.12 * exp(-((s - k h) / h)^2),  k = 1..n,        R = (G (x) Z) W / sqrt(n S)

    where Z is the one-hot element among S and W [n, S, n] is trained. ``known`` [S], where it has numbers, are the fastest atoms
    that the training saw, A/fs; nothing was learned of faster ones, which are taken for as fast as these.

    Parameters
    ----------
    max_speed
        v_max, A/fs. The Gaussians fade beyond it, so a faster atom is refused.
    num_basis, num_species
        n and S.
    """

    packed: list[Tensor]
    places: Tensor
    known: Tensor

    def __init__(self, max_speed: float, num_basis: int, num_species: int) -> None:
        super().__init__()
        self.max_speed, self.num_basis = float(max_speed), num_basis
        self.spacing = self.max_speed / (num_basis + 1)
        self.scale = 1.0 / (1.12 * math.sqrt(num_species))  # both factors
        self.register_buffer("places", torch.arange(1.0, num_basis + 1), persistent=False)
        self.register_buffer("known", torch.zeros(0), persistent=False)
        self.checked = True  # off where the caller looks at the speeds
        self.mix = nn.Parameter(torch.randn(num_basis, num_species, num_basis))

    def forward(self, velocities: Tensor, one_hot: Tensor) -> Tensor:
        """Return R [N, n] of ``velocities`` [N, 3] in A/fs and ``one_hot`` elements [N, S].

        Raises
        ------
        EquistrideError
            Where an atom is as fast as ``max_speed`` or faster (a ``RuntimeError`` from TorchScript).
        """
        speed = torch.linalg.vector_norm(velocities, dim=1)
        self.check(speed.detach())
        if self.known.size(0) > 0:
            speed = torch.minimum(speed, torch.matmul(one_hot, self.known))
        basis = torch.exp(-(speed[:, None] / self.spacing - self.places).square())
        mixed = (basis[:, :, None] * one_hot[:, None, :]).flatten(1)
        return torch.matmul(mixed, self.packed[0] if len(self.packed) > 0 else self.factors()[0])

    def factors(self) -> list[Tensor]:
        """Return what multiplies the Gaussians of each element, [n S, n]."""
        return [self.mix.flatten(0, 1) * self.scale]

    def check(self, speed: Tensor) -> None:
        """Refuse speeds [N] that the Gaussians do not cover."""
        if not self.checked or speed.size(0) == 0:
            return
        fastest = float(speed.max())
        if not fastest < self.max_speed:
            atom = int(speed.argmax())
            found, limit = int(fastest * 1e5), int(self.max_speed * 1e5)  # 1 A/fs = 1e5 m/s
            raise EquistrideError(
                f"atom {atom} moves at {found} m/s, faster than the model covers; expected below {limit} m/s; "
                + "lower the temperature, or train with a larger max_speed"
            )


class LengthBasis(nn.Module):
    """Enveloped Bessel functions of a bond length with trainable roots, in TrajCast's form.

    With x = r / cutoff: B_k = (2 / cutoff) sin(root_k x) / (r + 1e-5) * env(x), root_k = k pi at the start.

    Parameters
    ----------
    cutoff
        A.
    num_basis
        Functions.
    envelope_exponent
        p of the envelope, see :func:`~equistride.nn.radial.polynomial_envelope`.
    """

    def __init__(self, cutoff: float, num_basis: int, envelope_exponent: int) -> None:
        super().__init__()
        self.cutoff, self.envelope_exponent = float(cutoff), envelope_exponent
        self.roots = nn.Parameter(math.pi * torch.arange(1, num_basis + 1, dtype=torch.get_default_dtype()))

    def forward(self, r: Tensor) -> Tensor:
        """Return B [E, num_basis] of bond lengths r [E] in A; zero from the cutoff on."""
        x = (r / self.cutoff)[:, None]
        factor = polynomial_envelope(x, self.envelope_exponent) * (2.0 / self.cutoff) / (r[:, None] + 1e-5)
        return torch.sin(self.roots * x) * factor
