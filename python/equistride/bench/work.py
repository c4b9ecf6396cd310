"""Floating-point work of models and kernels: multiplications and additions that no implementation can leave out.

Matrix products, the couplings of tensor products that are not zero, and the layers of edge blocks count; what is linear in
the features does not, so that a share of the machine's limit is never flattered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import equistride._library  # noqa: F401  (loads torch.ops.equistride)


def tensor_product_work(paths: Sequence[int], couplings: Sequence[float]) -> int:
    """Return the work of one edge of a channel-wise tensor product, with every M[m1, m3] known, counting only what is not zero.

    Parameters
    ----------
    paths, couplings
        As ``torch.ops.equistride.tensor_product`` takes them: ten integers a path, and all coupling coefficients.
    """
    flops = 0
    for at in range(0, len(paths), 10):
        l1, l2, l3, channels = paths[at : at + 4]
        start = paths[at + 9]
        d1, d2, d3 = 2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1
        table = torch.tensor(couplings[start : start + d1 * d2 * d3]).view(d1, d2, d3)
        flops += (2 * int((table != 0).any(1).sum()) + min(d1, d3)) * channels
    return flops


def edge_block_work(
    l_max: int, m_max: int, channels: int, hidden: int, radial: int, mirror: bool
) -> tuple[float, float]:
    """Return the work of one edge of an eSEN edge block, forward and backward.

    Parameters
    ----------
    l_max, m_max
        Degrees of the features, orders in the bond frame.
    channels, hidden, radial
        Channels of the features, between the two layers, and before the last radial layer.
    mirror
        Whether an order has one matrix of its own; with two, a complex product is three real ones.
    """
    first = second = weights = 0
    for m in range(m_max + 1):
        rows = l_max + 1 - m
        matrices = 1 if m == 0 else (2 if mirror else 3)
        gates = l_max * hidden if m == 0 else 0
        first += matrices * rows * 2 * channels * (gates + rows * hidden)
        second += matrices * rows * hidden * rows * channels
        weights += rows * 2 * channels
    last = radial * weights
    forward = 2.0 * (first + second + last)
    return forward, forward + 2.0 * last


def _product(args: Sequence[Any], edges: int, couplings: int) -> float:
    return float(tensor_product_work(args[couplings - 1], args[couplings]) * edges)


def _edge_block(args: Sequence[Any], backward: bool) -> float:
    shift = 1 if backward else 0  # the backward's first argument is the gradient
    x, vectors, hidden = args[shift], args[shift + 1], args[shift + 4]
    l_max, m_max, between, mirror = args[9:13] if backward else args[7:11]
    work = edge_block_work(l_max, m_max, x.size(-1), between, hidden.size(-1), mirror)
    return work[backward] * vectors.size(0)


def _trajcast_layer(args: Sequence[Any]) -> float:
    edges, atoms, scalars = args[2].size(0), args[7].size(0), args[7].size(1)
    sizes = iter(args[15])
    channels, _, layers = next(sizes), next(sizes), next(sizes)
    widths = [scalars, *(next(sizes) for _ in range(layers))]
    terms = sum(fan_in * fan_out for fan_in, fan_out in pairwise(widths))
    terms += sum(next(sizes) * next(sizes) * channels for _ in range(next(sizes)))
    terms += sum(next(sizes) * next(sizes) * next(sizes) for _ in range(next(sizes)))
    for _ in range(next(sizes)):
        rows, _, _, _, kept = (next(sizes) for _ in range(5))
        terms += rows * channels**2 * (kept >= 0)
    return 2.0 * terms * atoms + _product(args, edges, 12) + _product(args, atoms, 14)


_OURS: dict[str, Callable[[Sequence[Any]], float]] = {
    "equistride.tensor_product": lambda a: _product(a, a[1].size(0), 5),
    "equistride.tensor_product_table": lambda a: _product(a, a[1].size(0), 8),
    "equistride.tensor_product_backward": lambda a: sum(a[7]) * _product(a, a[2].size(0), 6),
    "equistride.tensor_product_table_backward": lambda a: sum(a[10]) * _product(a, a[2].size(0), 9),
    "equistride.trajcast_layer": _trajcast_layer,
    "equistride.edge_block": lambda a: _edge_block(a, False),
    "equistride.edge_block_backward": lambda a: _edge_block(a, True),
}


class WorkCounter(TorchDispatchMode):
    """Counts the work of all operators called within it, those of a TorchScript module and of its backward too.

    Attributes
    ----------
    flops
        Multiplications and additions so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operator and add its work."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=out)
        elif str(packet) in _OURS:
            self.flops += _OURS[str(packet)](args)
        return out


def work_of(call: Callable[[], object]) -> float:
    """Return the multiplications and additions of a call."""
    with WorkCounter() as counter:
        call()
    return counter.flops
