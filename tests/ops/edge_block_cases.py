"""Edge blocks of random numbers, and all that the operators make of them: for the emulated and the real GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from equistride.nn.edge_block import pack
from equistride.nn.so2 import SO2Convolution

SIZES = {  # l_max, m_max, channels, hidden channels, radial channels, mirror
    "published": (2, 2, 64, 64, 64, False),
    "mirror": (2, 2, 32, 32, 64, True),
    "odd channels": (2, 1, 5, 7, 9, False),
    "odd channels, mirror": (2, 2, 9, 3, 6, True),
    "more hidden": (1, 1, 4, 20, 8, False),
    "fewer hidden": (3, 2, 20, 8, 12, False),
    "degree 4": (4, 4, 4, 4, 8, False),
    "degree 4, m <= 2, mirror": (4, 2, 12, 8, 40, True),
    "scalars only": (0, 0, 6, 4, 5, True),
    "m = 0 only": (3, 0, 3, 5, 4, False),
}
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5}
"""Sums of some hundred numbers in another order, relative to the largest."""

TF32_TOLERANCE = 5e-3
"""With factors of 11 bits, some products one after the other lose a few parts in 1,000 (6e-4 in the mean)."""


@contextmanager
def tf32() -> Iterator[None]:
    """Products of float32 may be rounded to TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def graph(atoms: int, edges: int, generator: torch.Generator) -> Tensor:
    """Random edges [2, edges], sorted by receiver: atom 0 receives a third of them, the last two none."""
    index = torch.randint(0, max(atoms - 2, 1), (2, edges), generator=generator)
    index[0, : edges // 3] = 0
    return index[:, index[0].argsort(stable=True)]


class BlockCase:
    """A block with its arguments; ``between`` lays every tensor of numbers into memory of its own kind."""

    def __init__(
        self, size: str, dtype: torch.dtype, atoms: int = 9, edges: int = 150,
        between: Callable[[Tensor], Tensor] = torch.clone,
    ) -> None:  # fmt: skip
        self.l_max, self.m_max, channels, hidden, radial, self.mirror = SIZES[size]
        self.hidden_channels = hidden
        with torch.random.fork_rng():
            torch.manual_seed(5)
            gates = self.l_max * hidden
            first = SO2Convolution(self.l_max, self.m_max, 2 * channels, hidden, gates, mirror=self.mirror)
            second = SO2Convolution(self.l_max, self.m_max, hidden, channels, mirror=self.mirror)
            weights = pack(first, second, torch.nn.Linear(radial, first.num_weights))
        generator = torch.Generator().manual_seed(6)

        def random(*shape: int) -> Tensor:
            return between(torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype))

        self.edge_index = graph(atoms, edges, generator)
        self.x, self.grad = (random(atoms, (self.l_max + 1) ** 2, channels) for _ in range(2))
        self.vectors, self.envelope, self.input = random(edges, 3), random(edges), random(edges, radial)
        self.weights = between(weights.to(dtype))
        self.frames = between(torch.ops.equistride.bond_frames(self.vectors, self.l_max))

    def tensors(self) -> list[Tensor]:
        """What the operators take."""
        return [self.x, self.vectors, self.frames, self.envelope, self.input, self.edge_index, self.weights]

    def to(self, device: str) -> BlockCase:
        """Move all tensors."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        return self

    @property
    def sizes(self) -> tuple[int, int, int, bool]:
        """Numbers that the operators take."""
        return self.l_max, self.m_max, self.hidden_channels, self.mirror

    def state_bytes(self, dtype: torch.dtype) -> int:
        """What an edge needs to be kept."""
        _, kept = torch.ops.equistride.edge_block(*[t.to("meta") for t in self.tensors()], *self.sizes, 1 << 40)
        return kept.size(1) * dtype.itemsize

    def everything(self, ops: torch._ops._OpNamespace, keep: int = 1 << 30) -> list[Tensor]:
        """Frames, output and all gradients."""
        tensors = self.tensors()
        out, kept = ops.edge_block(*tensors, *self.sizes, keep)
        grads = ops.edge_block_backward(self.grad, *tensors, kept, *self.sizes)
        return [ops.bond_frames(self.vectors, self.l_max), out, *grads]


def deviation(found: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest expected number."""
    if expected.numel() == 0:
        assert found.shape == expected.shape
        return 0.0
    found, expected = found.cpu().double(), expected.cpu().double()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


class SplineCase:
    """Splines of random numbers, with lengths beyond both ends."""

    def __init__(self, dtype: torch.dtype, terms: int, columns: int, edges: int = 61) -> None:
        generator = torch.Generator().manual_seed(8)
        self.tables = torch.randn(3, 11, terms, columns, generator=generator, dtype=torch.float64).to(dtype)
        self.lengths = (0.8 + 2.6 * torch.rand(edges, generator=generator, dtype=torch.float64)).to(dtype)
        self.pair = torch.arange(edges) % 3
        self.grad = torch.randn(edges, columns, generator=generator, dtype=torch.float64).to(dtype)

    def everything(self, ops: torch._ops._OpNamespace, device: str = "cpu") -> list[Tensor]:
        """Values and the gradient to the lengths."""
        lengths, pair, tables, grad = (t.to(device) for t in (self.lengths, self.pair, self.tables, self.grad))
        rest = (lengths, pair, tables, 1.0, 0.2)
        return [ops.radial_splines(*rest), ops.radial_splines_backward(grad, *rest)]


def some_bonds(l_max: int, channels: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Scalars, vectors, frames, radial rows and edges of 40 bonds, some longer than 2 A."""
    generator = torch.Generator().manual_seed(9)
    edges = graph(6, 40, generator)
    scalars, vectors = (torch.randn(*shape, generator=generator, dtype=dtype) for shape in ((6, channels), (40, 3)))
    radial = torch.randn(40, (l_max + 1) * channels, generator=generator, dtype=dtype)
    return [scalars, vectors, torch.ops.equistride.bond_frames(vectors, l_max), radial, edges]


class DegreeCase:
    """Lengths and first features of 40 bonds with their arguments; ``between`` lays tensors into memory of its own kind."""

    def __init__(
        self, l_max: int, channels: int, dtype: torch.dtype, between: Callable[[Tensor], Tensor] = torch.clone
    ) -> None:
        *numbers, self.edges = some_bonds(l_max, channels, dtype)
        self.scalars, self.vectors, self.frames, self.radial = map(between, numbers)

    def to(self, device: str) -> DegreeCase:
        """Move it, and return it."""
        for name, value in vars(self).items():
            setattr(self, name, value.to(device))
        return self

    def everything(self, ops: torch._ops._OpNamespace) -> list[Tensor]:
        """Lengths, envelopes and features, and the gradients of sums of their squares."""
        lengths, envelope = ops.bond_lengths(self.vectors, 2.0, 5)
        rest = (self.scalars, self.vectors, self.frames, envelope, self.radial, self.edges, 0.2)
        out = ops.edge_degree(*rest)
        on_vectors = ops.bond_lengths_backward(2 * lengths, 2 * envelope, self.vectors, 2.0, 5)
        return [lengths, envelope, out, on_vectors, *ops.edge_degree_backward(2 * out, *rest)]


def assert_as_on_the_cpu(case: Any, tolerance: float) -> None:
    """Outputs on the GPU are within the tolerance of the CPU's, and the same bit for bit the second time."""
    expected = case.everything(torch.ops.equistride)
    found = case.to("cuda").everything(torch.ops.equistride)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.is_cuda
        assert deviation(ours, theirs) < tolerance
    assert all(map(torch.equal, found, case.everything(torch.ops.equistride)))
