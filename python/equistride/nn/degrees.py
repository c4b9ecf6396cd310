"""Layers on features with a number of channels of its own for each degree.

Features are a list with one tensor [N, 2 l + 1, C_l] for each degree l = 0, 1, ..., components in the order of
:mod:`equistride.nn.harmonics`. Unless ``mirror`` is set, parity is not kept: a product of two vectors may be a
vector again, so that networks of these layers are equivariant under rotations alone.
"""

import math

import torch
from e3nn.o3 import wigner_3j
from torch import Tensor, nn

from equistride.nn.scalar_network import NORMALISED_SILU

NORMALISED_SIGMOID = 1.8467055342154763
"""Factor that gives the sigmoid of a standard normal variable second moment 1 (e3nn's constant)."""


class DegreeLinear(nn.Module):
    """One linear map of the channels of each degree; bias on the scalars.

    Weights start normal with variance 1 / fan-in, as published for Equiformer (arXiv 2206.11990).

    Parameters
    ----------
    channels_in, channels_out
        Channels of each degree. The output may have fewer degrees than the input.
    bias
        Add a bias to the scalars.

    Attributes
    ----------
    weight
        Degree after degree, each row-major (in, out).
    """

    def __init__(self, channels_in: list[int], channels_out: list[int], bias: bool = True) -> None:
        super().__init__()
        self.shapes = list(zip(channels_in, channels_out, strict=False))
        self.sizes = [a * b for a, b in self.shapes]
        self.weight = nn.Parameter(torch.cat([torch.randn(a * b) / math.sqrt(a) for a, b in self.shapes]))
        self.bias = nn.Parameter(torch.zeros(channels_out[0])) if bias else None

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Map features with ``channels_in`` to features with ``channels_out``; last channels may be left out where zero."""
        weights = self.weight.split(self.sizes)
        out: list[Tensor] = []
        for degree, (rows, columns) in enumerate(self.shapes):
            weight = weights[degree].view(rows, columns)
            given = x[degree].size(2)
            if given < rows:
                weight = weight.split([given, rows - given])[0]
            y = torch.matmul(x[degree], weight)
            bias = self.bias
            if degree == 0 and bias is not None:
                y = y + bias
            out.append(y)
        return out


class DegreeNorm(nn.Module):
    """Divide each degree by its root mean square over components and channels; centre the scalars first.

    Weights for every channel, biases for the scalars (arXiv 2206.11990, appendix on layer normalisation).
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.channels, self.eps = list(channels), 1e-5
        self.weight = nn.Parameter(torch.ones(sum(channels)))
        self.bias = nn.Parameter(torch.zeros(channels[0]))

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Return the normalised features."""
        weights = self.weight.split(self.channels)
        out: list[Tensor] = []
        for degree, part in enumerate(x):
            if degree == 0:
                part = part - part.mean(2, keepdim=True)
            scale = (part.square().mean(dim=[1, 2], keepdim=True) + self.eps).rsqrt()
            part = part * (scale * weights[degree])
            out.append(part + self.bias if degree == 0 else part)
        return out


class DegreeGate(nn.Module):
    """SiLU on the scalars, a sigmoid gate for each channel of higher degree, both with second moment 1.

    The gates are scalars themselves: they follow the first ``channels[0]`` of the input, degree after degree.
    """

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.channels = list(channels)
        self.silu, self.sigmoid = NORMALISED_SILU, NORMALISED_SIGMOID

    def input_channels(self) -> list[int]:
        """Return the channels that the gate reads."""
        return [sum(self.channels), *self.channels[1:]]

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        """Map features with :meth:`input_channels` to features with ``channels``."""
        scalars = x[0].split(self.channels, 2)
        out = [nn.functional.silu(scalars[0]) * self.silu]
        for degree in range(1, len(self.channels)):
            out.append(x[degree] * (torch.sigmoid(scalars[degree]) * self.sigmoid))
        return out


def paths_to(l_max: int, mirror: bool = False) -> list[tuple[int, int, int]]:
    """Return every (degree of x, degree of the harmonic, degree of the result) with degrees up to ``l_max``.

    ``mirror`` leaves out those that change the parity (-1)^l, such as the cross product of two vectors.
    """
    degrees, step = range(l_max + 1), 2 if mirror else 1
    return [(a, b, c) for a in degrees for b in degrees for c in range(abs(a - b), min(a + b, l_max) + 1, step)]


class Couplings(nn.Module):
    """What the depthwise products of all layers share: harmonics contracted with the coupling coefficients.

    ``forward`` gives for each degree l1 of x a tensor [E, rows, 2 l1 + 1]: the paths (l1, l2, l3) of :func:`paths_to` below
    each other, 2 l3 + 1 rows each.
    """

    table: Tensor

    def __init__(self, l_max: int, mirror: bool = False) -> None:
        super().__init__()
        paths = paths_to(l_max, mirror)
        self.components = [2 * degree + 1 for degree in range(l_max + 1)]
        self.rows = [sum(2 * c + 1 for a, _, c in paths if a == degree) for degree in range(l_max + 1)]
        self.sizes = [r * c for r, c in zip(self.rows, self.components, strict=True)]
        columns = []
        for a, b, c in paths:
            symbols = wigner_3j(a, b, c, dtype=torch.float64, device="cpu") * math.sqrt(2 * c + 1)
            whole = torch.zeros((l_max + 1) ** 2, 2 * c + 1, 2 * a + 1, dtype=torch.float64)
            whole[b**2 : (b + 1) ** 2] = symbols.permute(1, 2, 0)
            columns.append(whole.flatten(1))
        self.register_buffer("table", torch.cat(columns, 1), persistent=False)

    def forward(self, harmonics: Tensor) -> list[Tensor]:
        """Return the couplings of edges with ``harmonics`` [E, (l_max + 1)^2]."""
        parts = torch.matmul(harmonics, self.table.to(harmonics.dtype)).split(self.sizes, 1)
        out: list[Tensor] = []
        for part, rows, components in zip(parts, self.rows, self.components):  # noqa: B905 (TorchScript knows no strict=)
            out.append(part.view(-1, rows, components))
        return out


class DepthwiseProduct(nn.Module):
    """Channel-wise ('uvu') tensor product of each edge's features with its harmonics, not summed over edges.

    Every path of :func:`paths_to` has a weight for each channel and its own channels in the result: e3nn's
    ``o3.TensorProduct`` with ``path_normalization="none"``, in large products. :mod:`equistride.nn.tensor_product` sums over the
    senders as it goes; attention needs the single messages.

    Parameters
    ----------
    channels
        Channels of each degree of the input.
    shared
        The weights are parameters, the same for all edges; else they are given for each edge.
    mirror
        Keep to paths that keep the parity; the couplings must do the same.

    Attributes
    ----------
    channels_out
        Channels of each degree of the result.
    num_weights
        Weights of an edge, path after path.
    """

    def __init__(self, channels: list[int], shared: bool = False, mirror: bool = False) -> None:
        super().__init__()
        l_max = len(channels) - 1
        paths = paths_to(l_max, mirror)
        self.targets = [[c for a, _, c in paths if a == degree] for degree in range(l_max + 1)]
        self.rows = [[2 * c + 1 for c in targets] for targets in self.targets]
        self.sizes = [channels[a] for a, _, _ in paths]
        self.num_weights = sum(self.sizes)
        self.channels_out = [sum(channels[a] for a, _, c in paths if c == degree) for degree in range(l_max + 1)]
        self.degrees_out = l_max + 1
        self.weight = nn.Parameter(torch.randn(self.num_weights)) if shared else None

    def forward(self, x: list[Tensor], couplings: list[Tensor], weights: Tensor | None) -> list[Tensor]:
        """Return the products [E, 2 l + 1, channels_out[l]] of each degree.

        Parameters
        ----------
        x
            Features of the edges; trailing degrees may be left out where they are zero, then their paths are zero too.
        couplings
            Those of :class:`Couplings`.
        weights [E, num_weights]
            None where they are shared.
        """
        shared = self.weight
        if weights is not None:
            parts = weights[:, None].split(self.sizes, 2)
        elif shared is not None:
            parts = shared.split(self.sizes)
        else:
            raise RuntimeError("this product has no weights of its own; give weights")
        pieces: list[list[Tensor]] = []
        for _ in range(self.degrees_out):
            empty: list[Tensor] = []
            pieces.append(empty)
        path = 0
        for part, coupling, rows, targets in zip(x, couplings, self.rows, self.targets):  # noqa: B905
            products = torch.bmm(coupling, part).split(rows, 1)
            for product, target in zip(products, targets):  # noqa: B905
                pieces[target].append(product * parts[path])
                path += 1
        return [torch.cat(p, 2) for p in pieces]
