"""What a stride's CUDA kernels do to momenta and temperature, run on the host with every thread of a GPU emulated."""

from __future__ import annotations

import math

import pytest
import torch
from emulation import launches_of
from torch import Tensor

import equistride._library  # noqa: F401  (registers the operators)

CPU = torch.ops.equistride
EMULATES = ("strides",)
EXACT = 1e-11
"""Of the largest number: sums of 700 numbers go another way round, and the axes of inertia are found another way."""
HALF_STEPS = {"csvr": (1.0, 0.9), "langevin": (0.8, 1.0), "langevin+csvr": (0.8, 0.9)}
"""Factors of friction and of rescaling in a half-step."""
THERMAL = 2.5e-6  # k T at 300 K, amu A^2/fs^2


class Atoms:
    """Positions, velocities and masses."""

    def __init__(self, positions: Tensor, seed: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)
        count = len(positions)
        self.positions = positions.double()
        self.masses = 1 + 30 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
        self.velocities = 0.002 + 0.001 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
        self.ids = torch.randperm(count, generator=generator) + 1

    def half_step(self, ops: torch._ops._OpNamespace, kind: str, is_open: bool, number: int = 5) -> Tensor:
        """Velocities after a thermostat's half-step."""
        numbers = torch.tensor([*HALF_STEPS[kind], THERMAL], dtype=torch.float64)
        draw = torch.tensor([77, number])
        return ops.thermostat(self.positions, self.velocities, self.masses, self.ids, draw, numbers, is_open)


def bodies() -> dict[str, Atoms]:
    generator = torch.Generator().manual_seed(1)
    line = torch.linspace(0, 3, 5, dtype=torch.float64)[:, None] * torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64)
    return {
        "cluster": Atoms(20 + 6 * torch.rand(40, 3, generator=generator, dtype=torch.float64)),
        "more atoms than threads": Atoms(30 * torch.rand(700, 3, generator=generator, dtype=torch.float64)),
        "linear": Atoms(line + 4.0),
        "pair": Atoms(torch.tensor([[0.0, 0.0, 0.0], [1.1, 0.0, 0.0]])),
        "atom": Atoms(torch.tensor([[2.0, 3.0, 4.0]])),
        "top": Atoms(torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])),
    }


BODIES = bodies()


def assert_near(found: Tensor, expected: Tensor) -> None:
    assert float((found - expected).abs().max()) <= EXACT * float(expected.abs().max())


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("kind", HALF_STEPS)
@pytest.mark.parametrize("name", BODIES)
def test_thermostats_equal_the_cpu(name: str, kind: str, is_open: bool, emulated: torch._ops._OpNamespace) -> None:
    """With the same noise, whatever the order of the threads."""
    atoms = BODIES[name]
    expected = atoms.half_step(CPU, kind, is_open)
    emulated.set_order(0)
    found = atoms.half_step(emulated, kind, is_open)
    assert_near(found, expected)
    emulated.set_order(7)
    assert torch.equal(atoms.half_step(emulated, kind, is_open), found)
    if name not in ("atom", "pair"):
        assert not torch.allclose(atoms.half_step(emulated, kind, is_open, 6), found, rtol=1e-3)  # another draw


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("name", BODIES)
def test_momenta_equal_the_cpu(name: str, is_open: bool, emulated: torch._ops._OpNamespace) -> None:
    atoms = BODIES[name]
    generator = torch.Generator().manual_seed(7)
    moved, after = (0.1 * torch.randn(atoms.positions.shape, generator=generator, dtype=torch.float64) for _ in "xv")
    arguments = (atoms.positions, atoms.velocities, moved, after, atoms.masses, 5.0, is_open)
    found, expected = emulated.keep_momenta(*arguments), CPU.keep_momenta(*arguments)
    for ours, theirs in zip(found, expected, strict=True):
        assert_near(ours, theirs)
    spin = [
        torch.linalg.cross(r - (atoms.masses * r).sum(0) / atoms.masses.sum(), atoms.masses * v).sum(0)
        for r, v in ((atoms.positions, atoms.velocities), (atoms.positions + found[0], found[1]))
    ]
    if is_open and name not in ("linear", "pair", "atom"):  # those move off their line, about which they cannot turn
        assert_near(spin[1], spin[0])


def test_a_half_step_is_one_launch(emulated: torch._ops._OpNamespace) -> None:
    """Of torch's operators there were some forty, and `eigh`, which waits for the host."""
    atoms = BODIES["cluster"]
    assert launches_of(emulated, lambda: atoms.half_step(emulated, "langevin+csvr", True)) == 1
    assert launches_of(emulated, lambda: atoms.half_step(CPU, "langevin+csvr", True)) > 10


def philox(key: int, low: int, high: int) -> list[int]:
    """Philox4x32-10 of a key and a counter of 64 and 128 bits."""
    words = [low & 0xFFFFFFFF, low >> 32, high & 0xFFFFFFFF, high >> 32]
    keys = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
        words = [(b >> 32) ^ words[1] ^ keys[0], b & 0xFFFFFFFF, (a >> 32) ^ words[3] ^ keys[1], a & 0xFFFFFFFF]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return words


def test_the_noise_is_that_of_seed_draw_and_atom() -> None:
    """Random123's known answers; and an atom's three normal numbers are made of two blocks of them."""
    ones = (1 << 64) - 1
    assert philox(0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox(ones, ones, ones) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    ids, seed, number = torch.tensor([1, 9, 4000000000]), (1 << 40) + 5, 12
    normals = torch.zeros(3, 3, dtype=torch.float64)
    for row, atom in enumerate(ids.tolist()):
        values = []
        for block in range(2):
            w = philox(seed, atom | block << 48, number)
            u, v = (((w[k] << 32 | w[k + 1]) >> 11) * 2.0**-53 + 2.0**-54 for k in (0, 2))
            length = math.sqrt(-2 * math.log(u))
            values += [length * math.cos(2 * math.pi * v), length * math.sin(2 * math.pi * v)]
        normals[row] = torch.tensor(values[:3], dtype=torch.float64)
    masses = torch.tensor([[1.0], [4.0], [16.0]], dtype=torch.float64)
    noise = (THERMAL / masses).sqrt() * normals
    rest = torch.zeros(3, 3, dtype=torch.float64)
    numbers = torch.tensor([0.0, 1.0, THERMAL], dtype=torch.float64)
    found = CPU.thermostat(rest, rest, masses, ids, torch.tensor([seed, number]), numbers, False)
    assert torch.allclose(found, noise - (masses * noise).sum(0) / masses.sum(), rtol=0, atol=1e-15)


def test_rescaling_keeps_the_canonical_distribution() -> None:
    """The mean kinetic energy over many draws is that of the temperature: 3 sigma of 300 draws at tau = 0."""
    atoms = BODIES["cluster"]
    numbers = torch.tensor([1.0, 1e-300, THERMAL], dtype=torch.float64)
    internal = atoms.velocities - (atoms.masses * atoms.velocities).sum(0) / atoms.masses.sum()
    kinetic = []
    for k in range(300):
        draw = torch.tensor([5, k])
        after = CPU.thermostat(atoms.positions, internal, atoms.masses, atoms.ids, draw, numbers, False)
        kinetic.append(float((atoms.masses * after.square()).sum()))
    degrees = 3 * 40 - 3
    mean = sum(kinetic) / len(kinetic) / (degrees * THERMAL)
    assert abs(mean - 1) < 3 * math.sqrt(2 / degrees / len(kinetic))
