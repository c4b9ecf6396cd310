"""Functions of the bond length: bases, the smooth envelope, and the network on top of them."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def polynomial_envelope(x: Tensor, p: int) -> Tensor:
    """Return the envelope u(x) of x = r/rc: one at x = 0, zero with two derivatives at x = 1 and beyond.

    Gasteiger et al., arXiv 2003.03123, eq. 8.
    """
    xp = x.pow(p)
    u = 1.0 - xp * ((p + 1) * (p + 2) / 2.0 - x * (p * (p + 2.0) - x * (p * (p + 1) / 2.0)))
    return u * (x < 1.0).to(x.dtype)


def switched_envelope(r: Tensor, start: float, cutoff: float) -> Tensor:
    """Return XPLOR's switching function of lengths r in A: one up to ``start``, zero from the cutoff on.

    Its slope is continuous; its curvature jumps at both ends.
    """
    square, first, last = r.square(), start * start, cutoff * cutoff
    u = (last - square).square() * ((last - 3.0 * first) + 2.0 * square) / (last - first) ** 3
    u = torch.where(r < start, torch.ones_like(r), u)
    return u * (r < cutoff).to(r.dtype)


class GaussianBasis(nn.Module):
    """Gaussians on [0, cutoff], centres evenly spaced, width twice the spacing (eSEN, arXiv 2502.12147).

    ``rounded`` makes centres and width in float32, as fairchem-core does.
    """

    centres: Tensor

    def __init__(self, cutoff: float, num_basis: int, rounded: bool = False) -> None:
        super().__init__()
        centres = torch.linspace(0.0, cutoff, num_basis, dtype=torch.float32 if rounded else torch.float64)
        spacing = float(centres[1] - centres[0]) if rounded else cutoff / (num_basis - 1)
        self.factor = -0.5 / (2.0 * spacing) ** 2
        self.register_buffer("centres", centres.double(), persistent=False)

    def forward(self, r: Tensor) -> Tensor:
        """Return g [E, num_basis] of bond lengths r [E] in A."""
        return torch.exp(self.factor * (r[:, None] - self.centres).square())


class BesselBasis(nn.Module):
    """Enveloped spherical Bessel functions of order zero with trainable frequencies (arXiv 2003.03123, eq. 7).

    Parameters
    ----------
    cutoff, num_basis
        A; how many functions.
    prefactor
        Of ``sin(frequency x) / x`` with x = r / cutoff.
    exponent
        p of the polynomial envelope.
    switch
        Where XPLOR's switching function begins [A], which then takes the place of that envelope.
    """

    def __init__(
        self,
        cutoff: float,
        num_basis: int,
        prefactor: float | None = None,
        exponent: int = 5,
        switch: float | None = None,
    ) -> None:
        super().__init__()
        self.cutoff, self.exponent, self.switch = cutoff, exponent, cutoff if switch is None else switch
        self.prefactor = math.sqrt(2.0 / cutoff**3) if prefactor is None else prefactor
        self.frequencies = nn.Parameter(math.pi * torch.arange(1, num_basis + 1, dtype=torch.get_default_dtype()))

    def forward(self, r: Tensor) -> Tensor:
        """Return b [E, num_basis] of bond lengths r [E] in A."""
        return self.envelope(r)[:, None] * self.functions(r)

    def functions(self, r: Tensor) -> Tensor:
        """Return the same without the envelope."""
        x = (r / self.cutoff)[:, None]
        return self.prefactor * torch.sin(self.frequencies * x) / x

    def envelope(self, r: Tensor) -> Tensor:
        """Return the envelope [E]."""
        if self.switch < self.cutoff:
            return switched_envelope(r, self.switch, self.cutoff)
        return polynomial_envelope(r / self.cutoff, self.exponent)


class DistanceTransform(nn.Module):
    """Bond lengths in units of what two elements would have bonded, as MACE's potentials of many elements read them.

    ``agnesi``: 1 / (1 + a y^q / (1 + y^(q-p))) with y = r / r0 and r0 the mean of the covalent radii (Witt et al.,
    10.1063/5.0158783). ``soft``: from 3/4 of the radii's sum, where r is short, to r itself.

    Parameters
    ----------
    kind
        ``"agnesi"`` or ``"soft"``.
    radii
        Covalent radius of each element [A].
    parameters
        a, p and q; or the steepness.
    """

    sums: Tensor

    def __init__(self, kind: str, radii: Sequence[float], parameters: Sequence[float]) -> None:
        super().__init__()
        self.kind, self.parameters_of_kind = kind, [float(p) for p in parameters]
        each = torch.tensor(list(radii), dtype=torch.float64)
        self.register_buffer("sums", (each[:, None] + each[None]).flatten(), persistent=False)

    def forward(self, r: Tensor, pair: Tensor) -> Tensor:
        """Return transformed lengths [E] of bonds of lengths r [E] in A between elements ``pair`` [E], i * S + j."""
        total = self.sums.to(r.dtype).index_select(0, pair)
        if self.kind == "agnesi":
            a, p, q = self.parameters_of_kind[0], self.parameters_of_kind[1], self.parameters_of_kind[2]
            y = r / (0.5 * total)
            return 1.0 / (1.0 + a * y.pow(q) / (1.0 + y.pow(q - p)))
        first, last = 0.75 * total, total * (4.0 / 3.0)
        steepness = self.parameters_of_kind[0] / (last - first)
        share = 0.5 * (1.0 + torch.tanh(steepness * (r - 0.5 * (first + last))))
        return first + (r - first) * share


class RadialNetwork(nn.Module):
    """Weights of an edge from its length and its two elements.

    Linear, LayerNorm, SiLU, Linear, LayerNorm, SiLU, Linear on [basis, sender embedding, receiver embedding]. The first
    linear layer is split: what depends on the elements is multiplied once per pair of elements, not once per edge.

    Parameters
    ----------
    num_basis, channels, out
        Sizes: radial functions, width of embeddings and hidden layers, outputs.
    """

    def __init__(self, num_basis: int, channels: int, out: int) -> None:
        super().__init__()
        self.num_basis, self.channels = num_basis, channels
        self.first = nn.Linear(num_basis + 2 * channels, channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.second = nn.Linear(channels, channels)
        self.last = nn.Linear(channels, out)

    def forward(self, basis: Tensor, sender: Tensor, receiver: Tensor, pair: Tensor) -> Tensor:
        """Return [E, out].

        Parameters
        ----------
        basis [E, num_basis]
            Radial functions of the bond lengths.
        sender, receiver [S, channels]
            Embeddings of the S elements in each role.
        pair [E]
            Index of the elements of an edge, receiver * S + sender.
        """
        pairs = self.of_elements(sender, receiver)
        return self.after(self.of_basis(basis) + pairs.index_select(0, pair))

    def of_basis(self, basis: Tensor) -> Tensor:
        """Return what the first layer makes of radial functions [E, num_basis], without its bias."""
        weight = self.first.weight.split([self.num_basis, 2 * self.channels], 1)[0]
        return torch.matmul(basis, weight.t())

    def of_elements(self, sender: Tensor, receiver: Tensor) -> Tensor:
        """Return what it makes of each pair of elements [S * S, channels], with its bias."""
        _, of_sender, of_receiver = self.first.weight.split([self.num_basis, self.channels, self.channels], 1)
        from_sender = torch.matmul(sender, of_sender.t())
        from_receiver = torch.matmul(receiver, of_receiver.t()) + self.first.bias
        return (from_receiver[:, None] + from_sender[None]).flatten(0, 1)

    def after(self, h: Tensor) -> Tensor:
        """Return [E, out] for what the first layer gives [E, channels]."""
        h = nn.functional.silu(self.norm1(h))
        h = nn.functional.silu(self.norm2(self.second(h)))
        return self.last(h)
