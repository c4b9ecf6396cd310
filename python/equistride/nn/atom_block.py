"""What eSEN does on atoms, for serving: a native operator for the norm, and one for the block between two edge blocks.

For weights that are frozen. The plain versions are :class:`~equistride.nn.spherical.SphericalRMSNorm` and
:class:`~equistride.nn.spherical.SpectralFeedForward`. First gradients only, to the features.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

import equistride._library  # noqa: F401  (loads torch.ops.equistride)
from equistride.nn.spherical import SpectralFeedForward, SphericalRMSNorm


class AtomNorm(nn.Module):
    """A norm in one operator; its weights are the plain one's."""

    def __init__(self, norm: SphericalRMSNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Return the normalised features, as :meth:`SphericalRMSNorm.forward` does."""
        if shift is not None:
            return self.norm(x, shift)
        weight, bias, balance = self.weights()
        return torch.ops.equistride.spherical_norm(x, weight, bias, balance.view(-1), self.norm.eps)

    def weights(self) -> list[Tensor]:
        """Return the weight of each row and channel, the bias of the scalars and the weight of each row in the mean square."""
        weight = self.norm.packed[0] if len(self.norm.packed) > 0 else self.norm.factors()[0]
        return [weight, self.norm.bias, self.norm.balance]


class PlainAtomBlock(nn.Module):
    """Add messages to features, then what a feed-forward network makes of their norm."""

    def __init__(self, norm: SphericalRMSNorm, feed_forward: nn.Module) -> None:
        super().__init__()
        self.norm, self.feed_forward = norm, feed_forward

    def forward(self, x: Tensor, messages: Tensor) -> Tensor:
        """Return the updated features, of the shape of both, [N, (l_max+1)^2, C]."""
        x = x + messages
        return x + self.feed_forward(self.norm(x))


class AtomBlock(PlainAtomBlock):
    """The same in one operator, for a network that is gated degree by degree.

    Attributes
    ----------
    weights
        All of them as the kernels of this build read them, made by :meth:`pack`; nothing in files.
    """

    weights: Tensor
    if TYPE_CHECKING:  # TorchScript reads annotations of modules as those of values
        feed_forward: SpectralFeedForward

    def __init__(self, norm: SphericalRMSNorm, feed_forward: SpectralFeedForward) -> None:
        super().__init__(norm, feed_forward)
        self.hidden_channels = feed_forward.up.weight.size(1)
        self.register_buffer("weights", torch.empty(0), persistent=False)

    @torch.jit.export
    def pack(self) -> None:
        """Lay the weights out: once, before the first call."""
        network = self.feed_forward
        self.weights = torch.ops.equistride.atom_block_pack(
            self.norm.factors()[0], self.norm.bias, self.norm.balance, network.gates.weight, network.gates.bias,
            network.up.weight, network.up.bias, network.down.weight, network.down.bias,
        )  # fmt: skip

    @torch.jit.export
    def unpack(self) -> None:
        """Forget the layout, which no file shall hold."""
        self.weights = torch.empty(0)

    def forward(self, x: Tensor, messages: Tensor) -> Tensor:
        """Return the updated features, of the shape of both, [N, (l_max+1)^2, C].

        Raises
        ------
        ValueError, TypeError
            Where shapes or types do not fit.
        """
        return torch.ops.equistride.atom_block(x, messages, self.weights, self.hidden_channels, self.norm.eps)


class EnergyHead(nn.Module):
    """Weights of a last norm and of the three layers that make energies of its scalars, for an operator that ends with them.

    Attributes
    ----------
    weights
        As for :class:`AtomBlock`.
    """

    weights: Tensor

    def __init__(self, norm: SphericalRMSNorm, layers: nn.Sequential) -> None:
        super().__init__()
        self.norm, self.layers = norm, layers
        self.register_buffer("weights", torch.empty(0), persistent=False)

    @torch.jit.export
    def pack(self) -> None:
        """Lay the weights out: once, before the first call."""
        first, second, last = self.layers[0], self.layers[2], self.layers[4]
        layers = [first.weight, first.bias, second.weight, second.bias, last.weight, last.bias]
        norm = self.norm
        self.weights = torch.ops.equistride.energy_head_pack(norm.factors()[0], norm.bias, norm.balance, layers)

    @torch.jit.export
    def unpack(self) -> None:
        """Forget the layout, which no file shall hold."""
        self.weights = torch.empty(0)
