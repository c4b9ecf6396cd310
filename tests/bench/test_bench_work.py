"""Counted work against formulas, and the timer."""

from __future__ import annotations

import dataclasses
import mmap

import pytest
import torch
from random_models import random_potential

from equistride.bench import machine, timing
from equistride.bench.kernels import graph_of, padded_list_arguments
from equistride.bench.machine import limits, peak, reset_peak, resident
from equistride.bench.timing import Times, event_time, timed
from equistride.bench.work import edge_block_work, tensor_product_work, work_of
from equistride.graph import neighbor_list
from equistride.models.esen_fused import fuse
from equistride.models.potential import ConservativePotential
from equistride.nn.tensor_product import TensorProductConvolution


def test_a_matrix_product_counts_two_operations_a_term() -> None:
    a, b = torch.randn(7, 11), torch.randn(11, 5)
    assert work_of(lambda: a @ b) == 2 * 7 * 11 * 5


def test_scalars_times_scalars_are_one_product_a_channel() -> None:
    """0 x 0 -> 0: one multiplication with the coupling and the harmonic, one addition, one with the weight."""
    convolution = TensorProductConvolution("16x0e", "0e")
    assert tensor_product_work(convolution.paths, convolution.couplings) == 16 * (2 + 1)


def test_a_convolution_is_counted_edge_by_edge() -> None:
    convolution = TensorProductConvolution("4x0e + 4x1o", "0e + 1o")
    edge = tensor_product_work(convolution.paths, convolution.couplings)
    for edges in (10, 20):
        ends = torch.zeros(2, edges, dtype=torch.int64)
        x, y, w = torch.randn(3, 16), torch.randn(edges, 4), torch.randn(edges, convolution.weight_numel)
        assert work_of(lambda x=x, y=y, w=w, ends=ends: convolution(x, y, w, ends)) == edges * edge


def test_edge_block_is_what_its_matrices_are() -> None:
    """l = m = 0: first layer 2C -> H, second H -> C, radial weights R -> 2C; the last twice on the way back."""
    forward, backward = edge_block_work(0, 0, 8, 6, 5, True)
    assert forward == 2 * (16 * 6 + 6 * 8 + 5 * 16)
    assert backward == forward + 2 * 5 * 16


def test_fused_and_plain_potential_need_the_same_products(quartz_atoms) -> None:
    """The fused form's formula against torch's own count of the plain form: the block's layers are the most of both."""
    potential = random_potential(channels=16, hidden_channels=16, edge_channels=16).float().requires_grad_(False)
    positions, cell = (torch.tensor(a, dtype=torch.float32) for a in (quartz_atoms.positions, quartz_atoms.cell.array))
    species = torch.tensor(quartz_atoms.numbers == 14).long()
    edges = neighbor_list(positions, cell, True, 4.0)
    plain = work_of(lambda: potential(positions, species, cell, *edges))
    network = fuse(potential.network)
    fused = ConservativePotential(network, potential.species, 4.0, 1.0, [0.0, 0.0])
    ours = work_of(lambda: fused(positions, species, cell, *edges))
    # plain torch rotates with full matrices and computes the radial networks, which splines replace: that is not needed work
    assert 0.5 * plain < ours < plain


class Clock:
    """The time as a call passes it: so many seconds on the clock, a tenth of them of the processor."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now / 10

    def passes(self, seconds: float) -> None:
        self.now += seconds


def test_times_are_medians_of_clock_and_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    durations = iter([100.0, 3.0, 1.0, 2.0])  # the first call warms up
    times = timed(lambda: clock.passes(next(durations)), 3)
    assert times == pytest.approx((0.2, 2.0, 3))


def test_seconds_end_the_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    assert timed(lambda: clock.passes(2.0), 1000, seconds=5.0).calls == 3


def test_peak_sees_what_was_freed() -> None:
    reset_peak()
    before = resident()
    with mmap.mmap(-1, 64 << 20) as large:  # of the system's, not of what an allocator has kept
        large.write(b"1" * (64 << 20))
    assert peak() - before > 60 << 20


@pytest.mark.parametrize("ours", [0.001, 1.0])
def test_limits_are_counted_work_over_time(monkeypatch: pytest.MonkeyPatch, ours: float) -> None:
    """The faster of torch's product of 1,024 x 1,024 and our block, and a copy of 64 MiB that is read and written."""
    monkeypatch.setattr(timing, "timed", lambda *_, **__: Times(0.5, 0.25, 1))
    monkeypatch.setattr(machine, "cpu_time", lambda *_: ours)
    block = edge_block_work(0, 0, 768, 768, 8, True)[0] * 480 / ours
    gemm, copy = limits(torch.float32)
    assert gemm == pytest.approx(max(2 * 1024**3 / 0.5, block), rel=0.01)
    assert copy == 2 * 64 * 2**20 / 0.5


class Event:
    """A CUDA event: it notes the device's time, which a call passes with its work and the host's launch before it."""

    now, launch, idle = 0.0, 7e-6, True

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = Event.now

    def synchronize(self) -> None:
        Event.idle = True

    def elapsed_time(self, end: Event) -> float:
        return 1e3 * (end.at - self.at)


@pytest.mark.parametrize("seconds", [40e-6, 30e-3])
def test_the_host_is_not_counted_between_events(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch of 7 us, which only an idle device waits for, adds less than 1 % to a list of 40 us."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    Event.idle = True

    def call() -> None:
        Event.now += seconds + (Event.launch if Event.idle else 0)
        Event.idle = False

    assert event_time(call, 3) == pytest.approx(seconds, rel=0.01)


def test_a_padded_list_takes_its_arguments_on_one_device() -> None:
    """The meta device looks at them as a GPU does."""
    graph = graph_of("quartz-9", torch.float32, 4.0)
    on_device = dataclasses.replace(graph, positions=graph.positions.to("meta"), cell=graph.cell.to("meta"))
    edge_index, shifts, _ = torch.ops.equistride.neighbors_padded(*padded_list_arguments(on_device, 4.0))
    room = graph.edges + graph.edges // 25
    assert (edge_index.shape, shifts.shape) == ((2, room), (room, 3))
