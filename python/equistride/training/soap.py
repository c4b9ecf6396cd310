"""SOAP (arXiv 2409.11321): Adam in the eigenbasis of Shampoo's factors, a basis for each side of each matrix of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

EVERY: int = 5
"""Steps between two turns of the bases."""
MEMORY: float = 0.98
"""Decay of the factors, the mean products of a gradient with its transpose."""
WIDEST: int = 256
"""Longest side that has a basis; longer ones, as the outputs of a network that weights all paths of a layer, keep their own."""
Shape = tuple[int, int]


class Soap(torch.optim.Optimizer):
    """Adam that sees each matrix in the directions in which its gradients vary.

    Parameters
    ----------
    params
        As for any optimiser.
    lr, betas, weight_decay
        As for ``torch.optim.AdamW``.
    matrices
        For a parameter that holds several matrices one after another, row-major, their shapes. Others with two axes are a
        matrix each; the rest, and what has one row or column, is left to Adam.

    The first step only looks: it makes the bases.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, betas: tuple[float, float] = (0.9, 0.99), eps: float = 1e-8,
        weight_decay: float = 0.0, *, matrices: Mapping[nn.Parameter, Sequence[Shape]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._matrices = dict(matrices or {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make a step; as :meth:`torch.optim.Optimizer.step`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: nn.Parameter, gradients: Tensor, group: dict[str, Any]) -> None:
        shapes = self._matrices.get(parameter) or [_shape(parameter)]
        sizes = [rows * columns for rows, columns in shapes]
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["matrices"] = [_begin(parameter, shape) for shape in shapes]
        state["step"] += 1
        step = int(state["step"])
        moved = [
            _direction(known, gradient.view(shape), step, group).flatten()
            for known, gradient, shape in zip(state["matrices"], gradients.flatten().split(sizes), shapes, strict=True)
        ]
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        parameter.add_(torch.cat(moved).view_as(parameter), alpha=-group["lr"])


def _shape(parameter: Tensor) -> Shape:
    return (parameter.size(0), parameter.size(1)) if parameter.dim() == 2 else (parameter.numel(), 1)


def _begin(parameter: Tensor, shape: Shape) -> dict[str, Tensor]:
    """Return the state of a matrix: moments, and for each side that is not too long its factor and basis."""
    known = {"mean": parameter.new_zeros(shape), "square": parameter.new_zeros(shape)}
    for side, length in zip(("left", "right"), shape, strict=True):
        if min(shape) > 1 and length <= WIDEST:
            known[f"{side}_factor"] = parameter.new_zeros(length, length)
            known[f"{side}_basis"] = torch.eye(length, dtype=parameter.dtype, device=parameter.device)
    return known


def _turned(known: Mapping[str, Tensor], x: Tensor, back: bool = False) -> Tensor:
    """Return a matrix in the bases of its sides, or from there."""
    if "left_basis" in known:
        basis = known["left_basis"]
        x = (basis if back else basis.T) @ x
    if "right_basis" in known:
        basis = known["right_basis"]
        x = x @ (basis.T if back else basis)
    return x


def _direction(known: dict[str, Tensor], gradient: Tensor, step: int, group: Mapping[str, Any]) -> Tensor:
    """Take in a gradient; return what is subtracted from the matrix, times the learning rate."""
    first, second = group["betas"]
    for side, rows in (("left", gradient), ("right", gradient.T)):
        if f"{side}_factor" in known:
            known[f"{side}_factor"].lerp_(rows @ rows.T, 1.0 - MEMORY)
    if step == 1:
        for side in ("left", "right"):
            if f"{side}_factor" in known:
                vectors = torch.linalg.eigh(known[f"{side}_factor"].double())[1].flip(1)
                known[f"{side}_basis"].copy_(vectors)
    known["mean"].lerp_(gradient, 1.0 - first)
    known["square"].lerp_(_turned(known, gradient).square(), 1.0 - second)
    if step == 1:
        return torch.zeros_like(gradient)
    # Adam's own share never exceeds this (Cauchy and Schwarz); where a basis has turned, the mean square is of other directions
    most = (1.0 - first) / math.sqrt((1.0 - second) * (1.0 - first**2 / second))
    grown = math.sqrt(1.0 - second**step)
    scale = known["square"].sqrt().add_(grown * group["eps"])
    share = (_turned(known, known["mean"]) / scale).clamp_(-most, most)
    moved = _turned(known, share, back=True).mul_(grown / (1.0 - first**step))
    if step % EVERY == 0:
        _follow(known)
    return moved


def _follow(known: dict[str, Tensor]) -> None:
    """Turn the bases towards the eigenvectors of their factors: one power iteration, the largest first."""
    for axis, side in enumerate(("left", "right")):
        if f"{side}_factor" not in known:
            continue
        factor, basis = known[f"{side}_factor"], known[f"{side}_basis"]
        image = factor @ basis
        order = (basis * image).sum(0).argsort(descending=True, stable=True)
        known["square"] = known["square"].index_select(axis, order)
        known[f"{side}_basis"] = torch.linalg.qr(image.index_select(1, order))[0]
