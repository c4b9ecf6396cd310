"""Weights in the form in which a module multiplies by them, made once where they will not change."""

import torch
from torch import Tensor, nn


class Packed(nn.Module):
    """A module whose weights are scaled or laid out before use: in each call, or once, after :meth:`pack`.

    A subclass gives :meth:`factors` and repeats the annotation, which TorchScript does not inherit.

    Attributes
    ----------
    packed
        What :meth:`factors` returned, in a model that is served; nothing in training and in files.
    """

    packed: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.packed = []

    def factors(self) -> list[Tensor]:
        """Return the weights as they are used."""
        raise NotImplementedError

    @torch.jit.export
    def pack(self) -> None:
        """Make them once and not in each call."""
        self.packed = self.factors()

    @torch.jit.export
    def unpack(self) -> None:
        """Forget them, which no file shall hold twice."""
        self.packed = []
