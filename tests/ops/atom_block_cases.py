"""Atom blocks of random numbers, and all that the operators make of them: for the CPU, and the emulated and the real GPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from equistride.nn.atom_block import AtomBlock, PlainAtomBlock
from equistride.nn.spherical import SpectralFeedForward, SphericalRMSNorm

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}
"""Sums of some hundred numbers in another order, relative to the largest."""
SIZES = [(2, 16, 32), (1, 17, 33), (3, 9, 40), (4, 6, 2)]
"""l_max, channels, hidden channels."""


def random_block(l_max: int, channels: int, hidden: int) -> tuple[AtomBlock, PlainAtomBlock]:
    """A block with weights and biases that are all different, float64, and the plain one."""
    torch.manual_seed(4)
    norm, network = SphericalRMSNorm(l_max, channels), SpectralFeedForward(l_max, channels, hidden)
    plain = PlainAtomBlock(norm, network).double().requires_grad_(False)
    for weight in plain.parameters():
        weight.normal_()
    block = AtomBlock(norm, network)
    block.pack()
    return block, plain


def features(l_max: int, channels: int, atoms: int = 29) -> tuple[Tensor, ...]:
    """Features and messages."""
    generator = torch.Generator().manual_seed(7)
    return torch.randn(2, atoms, (l_max + 1) ** 2, channels, generator=generator, dtype=torch.float64).unbind(0)


class AtomCase:
    """A block with its arguments; ``between`` lays every tensor of numbers into memory of its own kind."""

    def __init__(
        self, size: tuple[int, int, int], dtype: torch.dtype, atoms: int = 29,
        between: Callable[[Tensor], Tensor] = torch.clone,
    ) -> None:  # fmt: skip
        block = random_block(*size)[0].to(dtype)
        block.pack()
        self.hidden = size[2]
        self.x, self.messages = (between(t.to(dtype)) for t in features(*size[:2], atoms))
        self.weights = between(block.weights)
        factors = (block.norm.factors()[0], block.norm.bias, block.norm.balance.view(-1))
        self.weight, self.bias, self.balance = (between(t.detach()) for t in factors)

    def to(self, device: str) -> AtomCase:
        """Move it, and return it."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    def everything(self, ops: torch._ops._OpNamespace) -> list[Tensor]:
        """The norm and the block, each with the gradients of a sum of its squares."""
        norm = (self.x, self.weight, self.bias, self.balance, 1e-5)
        block = (self.x, self.messages, self.weights, self.hidden, 1e-5)
        y, z = ops.spherical_norm(*norm), ops.atom_block(*block)
        return [y, ops.spherical_norm_backward(2 * y, *norm), z, ops.atom_block_backward(2 * z, *block)]
