"""FRAMES: which frames are paired, what the loss can know, and that it leaves the served network as it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from e3nn import o3
from pydantic import ValidationError

from equistride.data.frames import Frames
from equistride.data.oscillators import energy_and_forces, springs, trajectories
from equistride.errors import EquistrideError
from equistride.models.equiformer import Equiformer, EquiformerConfig
from equistride.models.esen import ESEN, ESENConfig
from equistride.models.nequip import NequIP, NequIPConfig
from equistride.training.frames_loss import FramesConfig, FramesTask, anchors, encode, labelled_rows, rows_apart
from equistride.training.pairs import graph
from equistride.units import ACCELERATION

SPECIES = ["C", "N", "O", "F", "S"]
SMALL = {"num_layers": 1, "channels": [8, 6], "hidden_channels": [8, 6], "head_channels": [4, 3], "num_heads": 2,
         "scalar_channels": 8, "num_basis": 6, "radial_channels": 8}  # fmt: skip


def backbone(kind: str, **options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "equiformer":
        return Equiformer(EquiformerConfig.model_validate(SMALL), 5).double()
    if kind == "nequip":
        made = {
            "num_layers": 2,
            "channels": 6,
            "l_max": 1,
            "radial_widths": [8],
            "parity": "both",
            "avg_num_neighbors": 5.0,
        }
        return NequIP(NequIPConfig.model_validate(made), 5).double()
    sizes = {"num_layers": 1, "channels": 8, "hidden_channels": 8, "edge_channels": 8, "l_max": 1, "m_max": 1}
    return ESEN(ESENConfig.model_validate(sizes | options), 5).double()


def task(network: torch.nn.Module, data: Frames, batch_size: int = 6, **options: object) -> FramesTask:
    torch.manual_seed(1)
    config = FramesConfig.model_validate(options)
    return FramesTask(network, config, [data], SPECIES, 5.0, batch_size=batch_size, seed=3, steps=100).double()


@pytest.fixture(scope="module")
def frames() -> Frames:
    return trajectories(4, 12, spacing_fs=2.0)


def test_oscillators_obey_newton(frames: Frames) -> None:
    stiffness, lengths, rest = springs(0)
    energy, forces = energy_and_forces(rest, stiffness, lengths)
    assert energy == pytest.approx(0.0, abs=1e-12)
    assert np.abs(forces).max() < 1e-12
    moved = rest + 0.1 * np.random.default_rng(1).normal(size=rest.shape)
    energy, forces = energy_and_forces(moved, stiffness, lengths)
    for atom, axis in ((0, 0), (3, 2)):
        step = np.zeros_like(moved)
        step[atom, axis] = 1e-5
        slope = (
            energy_and_forces(moved + step, stiffness, lengths)[0]
            - energy_and_forces(moved - step, stiffness, lengths)[0]
        ) / 2e-5
        assert -slope == pytest.approx(forces[atom, axis], rel=1e-6)
    fine = trajectories(1, 20, spacing_fs=0.5)
    second = fine.positions[2:] - 2 * fine.positions[1:-1] + fine.positions[:-2]
    expected = 0.25 * ACCELERATION * fine.forces[1:-1] / fine.masses[:, None]
    assert np.allclose(second, expected, rtol=0, atol=1e-12)
    kinetic = 0.5 * (fine.masses[:, None] * fine.velocities**2).sum((1, 2)) / ACCELERATION
    assert np.ptp(fine.energy + kinetic) < 2e-3


def test_pairs_are_found_by_time_and_never_across_a_gap(frames: Frames) -> None:
    assert rows_apart(frames, None) == 1
    assert rows_apart(frames, 6.0) == 3
    found = anchors(frames, [0, 2])
    assert len(found) == 4 * 10
    assert all(frames.segment[k] == frames.segment[k + 2] for k in found)
    assert len(anchors(frames, [-1, 0, 1])) == 4 * 10
    assert len(anchors(frames, [0, 12])) == 0
    with pytest.raises(
        EquistrideError, match="not a multiple of the time between frames; expected a multiple of 2 fs; found 3"
    ):
        rows_apart(frames, 3.0)
    with pytest.raises(EquistrideError, match="no time stamps, so that no frames can be paired"):
        rows_apart(replace(frames, time_fs=None), None)
    with pytest.raises(EquistrideError, match="not evenly spaced"):
        rows_apart(frames[np.array([0, 1, 3, 4])], None)
    assert rows_apart(frames[np.array([0, 1, 13, 14])], None) == 1  # the gap lies between two segments


def test_labels_of_anchors_alone(frames: Frames) -> None:
    assert len(labelled_rows(frames, FramesConfig())) == 48
    kept = labelled_rows(frames, FramesConfig(labels="anchor"))
    assert kept[:6].tolist() == [0, 2, 4, 6, 8, 10]
    assert kept[6] == 12
    assert labelled_rows(frames, FramesConfig(labels="anchor", frames=2))[:4].tolist() == [0, 3, 6, 9]


VERLET: dict[str, object] = {"mode": "single", "target": "second-difference", "readout": "gradient"}
OPTIONS: list[dict[str, object]] = [
    {}, {"frames": 3}, {"mode": "history", "frames": 2}, {"mode": "single"}, {"target": "second-difference"},
    {"target": "velocity"}, {"control": "noise"}, {"control": "self"}, {"control": "shuffled"}, {"control": "dens"},
    {"spacing_fs": 4.0}, VERLET, VERLET | {"frames": 2}, VERLET | {"control": "shuffled"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, options) for kind in ("equiformer", "esen") for options in OPTIONS]
    + [("nequip", options) for options in ({}, {"mode": "history", "frames": 2}, {"mode": "single"})],
    ids=str,
)
def test_every_option_gives_a_gradient_to_the_network(kind: str, options: dict[str, object], frames: Frames) -> None:
    network = backbone(kind)
    aid = task(network, frames, **options)
    loss = aid(network, 5)
    assert 0.5 < float(loss.detach()) < 1.5  # in units of the target's rms
    loss.backward()
    last = "layers.1"  # of a NequIP, which the features do not read
    reached = [
        p.grad is not None and float(p.grad.abs().max()) > 0
        for n, p in network.named_parameters() if ("radial" in n or "messages" in n) and last not in n
    ]  # fmt: skip
    assert all(reached)
    assert all(p.grad is not None for p in aid.parameters())
    assert float(aid(network, 5).detach()) == float(loss.detach())
    assert float(aid(network, 6).detach()) != float(loss.detach())


def targets_of(aid: FramesTask, step: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    picked = aid.batch(step)
    return np.array(picked.inputs), np.array(picked.targets), picked.rows


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(1, keepdims=True)


def test_targets_are_what_they_are_called(frames: Frames) -> None:
    network = backbone("equiformer")
    p = frames.positions
    inputs, found, rows = targets_of(task(network, frames), 2)
    k = np.array(rows)
    assert np.array_equal(inputs, np.stack([p[k], p[k + 1]], 1))
    assert np.allclose(found, centred(p[k + 1] - p[k]), rtol=0, atol=1e-14)
    inputs, found, rows = targets_of(task(network, frames, frames=3), 2)
    k = np.array(rows)
    assert inputs.shape[1] == 4
    assert np.allclose(found, centred(p[k + 3] - p[k]), rtol=0, atol=1e-14)
    inputs, found, rows = targets_of(task(network, frames, mode="history"), 2)
    k = np.array(rows)
    assert np.array_equal(inputs, np.stack([p[k - 1], p[k]], 1))
    assert np.allclose(found, centred(p[k + 1] - p[k]), rtol=0, atol=1e-14)
    _, found, rows = targets_of(task(network, frames, target="velocity"), 2)
    assert np.allclose(found, centred(frames.velocities[rows]), rtol=0, atol=1e-14)
    fine = trajectories(2, 12, spacing_fs=0.5)
    _, found, rows = targets_of(task(network, fine, target="second-difference"), 2)
    force = centred(0.25 * ACCELERATION * fine.forces[rows] / fine.masses[:, None])
    assert np.allclose(found, force, rtol=0, atol=1e-12)  # the label itself: that is why it leaks
    inputs, found, rows = targets_of(task(network, frames, **VERLET, frames=2), 2)
    k = np.array(rows)
    assert np.array_equal(inputs[:, 0], p[k])
    assert np.allclose(found, centred(p[k + 2] - 2 * p[k] + p[k - 2]), rtol=0, atol=1e-14)


def test_controls_hold_no_motion(frames: Frames) -> None:
    network = backbone("equiformer")
    p = frames.positions
    inputs, found, rows = targets_of(task(network, frames, control="noise"), 2)
    assert np.allclose(inputs[:, 1] - inputs[:, 0], found, rtol=0, atol=1e-14)
    moved = centred(p[1:] - p[:-1])[np.diff(frames.segment) == 0]
    assert np.sqrt((found**2).sum(2).mean()) == pytest.approx(np.sqrt((moved**2).sum(2).mean()), rel=0.4)
    inputs, found, rows = targets_of(task(network, frames, control="self"), 2)
    assert np.array_equal(inputs[:, 0], inputs[:, 1])
    assert np.allclose(found, p[rows] - p[rows].mean(1, keepdims=True), rtol=0, atol=1e-14)
    inputs, found, rows = targets_of(task(network, frames, control="shuffled"), 2)
    k = np.array(rows)
    assert np.array_equal(inputs[:, 0], p[k])
    assert (np.abs(inputs[:, 1] - p[k + 1]).max((1, 2)) > 1e-3).sum() >= 5
    inputs, found, rows = targets_of(task(network, frames, **VERLET, control="shuffled"), 2)
    k = np.array(rows)
    assert np.array_equal(inputs[:, 0], p[k])
    assert (np.abs(found - centred(p[k + 1] - 2 * p[k] + p[k - 1])).max((1, 2)) > 1e-3).sum() >= 5
    still = replace(frames, time_fs=None, segment=None)  # frames with labels that follow no other
    inputs, found, rows = targets_of(task(network, still, control="dens", noise=0.1), 2)
    assert inputs.shape[1] == 1
    assert np.allclose(inputs[:, 0] - p[rows], found, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["equiformer", "esen"])
@pytest.mark.parametrize("options", [{}, VERLET], ids=["pair", "verlet"])
def test_loss_does_not_depend_on_the_orientation(kind: str, options: dict[str, object], frames: Frames) -> None:
    network = backbone(kind)
    aid = task(network, frames, **options)
    with torch.no_grad():
        aid.head.last.weight.normal_()
    loss = float(aid(network, 1).detach())
    q = o3.rand_matrix(dtype=torch.float64).numpy()
    turned = task(network, replace(frames, positions=frames.positions @ q.T), **options)
    turned.load_state_dict(aid.state_dict())
    assert float(turned(network, 1).detach()) == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize(("options", "most"), [({}, 0.6), (VERLET, 0.8)], ids=["pair", "verlet"])
def test_a_pair_is_learnt_and_a_shuffled_one_is_not(options: dict[str, object], most: float, frames: Frames) -> None:
    """The displacement can be read from both frames, the force from one by a slope; from a wrong partner neither can."""
    left = {}
    for control in ("none", "shuffled"):
        network = backbone("equiformer").float()
        aid = task(network, frames, batch_size=24, control=control, **options).float()
        optimiser = torch.optim.Adam([*network.parameters(), *aid.parameters()], lr=1e-2)
        for step in range(150):
            optimiser.zero_grad()
            loss = aid(network, step)
            loss.backward()
            optimiser.step()
        other = trajectories(4, 12, spacing_fs=2.0, seed=5)
        unseen = task(network, other, batch_size=24, control=control, **options).float()
        unseen.load_state_dict(aid.state_dict())
        left[control] = float(np.mean([float(unseen(network, k).detach()) for k in range(3)]))
    assert left["none"] < most
    assert left["shuffled"] > 0.8


@pytest.mark.parametrize(
    ("options", "offsets"),
    [({}, [0, 1]), ({"mode": "history", "frames": 2}, [-2, -1, 0]), ({"control": "self"}, [0, 0])],
    ids=["pair", "history", "self"],
)
def test_each_frame_has_its_own_charge_and_spin(options: dict[str, object], offsets: list[int], frames: Frames) -> None:
    """The loss of a pair is that of its frames encoded one by one, each under the charge and spin of its row; a frame that
    gives none is neutral and of no given spin."""
    network = backbone("esen", charge_spin="table")
    charge, spin = np.arange(len(frames)) % 5 - 2.0, 1.0 + np.arange(len(frames)) % 3
    charge[::7] = np.nan
    aid = task(network, replace(frames, charge=charge, spin=spin), batch_size=1, **options)
    with torch.no_grad():
        aid.head.last.weight.normal_()
    kinds, frame = torch.arange(5), torch.zeros(5, dtype=torch.int64)
    differ = []
    for step in range(4):
        found = float(aid(network, step).detach())
        picked = aid.batch(step)
        losses = []
        for charges, spins in ((np.nan_to_num(charge), spin), (np.zeros(len(frames)), np.zeros(len(frames)))):
            seen = []
            for positions, offset in zip(picked.inputs[0], offsets, strict=True):
                row = picked.rows[0] + offset
                network.set_system(charges[row], spins[row])
                cell, pbc = torch.from_numpy(frames.cell[:1]), torch.from_numpy(frames.pbc)[None]
                vectors, edges = graph(torch.from_numpy(positions), cell, pbc, frame, 5.0)
                seen.append(encode(network, vectors, kinds, edges))
            aim = torch.from_numpy(picked.targets[0] / aid.scale)
            losses.append(float(((aid.head(seen) - aim).square().sum(1) + 1e-12).sqrt().mean().detach()))
        assert found == pytest.approx(losses[0], rel=1e-12)  # the order of sums alone differs
        differ.append(abs(losses[1] / losses[0] - 1))
    assert min(differ) > 1e-4, "charges matter here"


def test_weight_falls_to_zero(frames: Frames) -> None:
    network = backbone("equiformer")
    falling, constant = task(network, frames, weight=2.0), task(network, frames, weight=2.0, schedule="constant")
    assert [falling.weight(k) for k in (0, 50, 100)] == [2.0, 1.0, 0.0]
    assert [constant.weight(k) for k in (0, 50, 100)] == [2.0, 2.0, 2.0]


def test_what_cannot_be_trained_is_refused(frames: Frames) -> None:
    network = backbone("equiformer")
    with pytest.raises(
        EquistrideError, match="no frame of the data has its partners in the same segment; expected segments of 4"
    ):
        task(network, frames[np.array([0, 1, 12, 13])], frames=3)
    with pytest.raises(EquistrideError, match="the data has no velocities"):
        task(network, replace(frames, velocities=None), target="velocity")
    with pytest.raises(EquistrideError, match="dens needs forces"):
        task(network, replace(frames, forces=np.full_like(frames.forces, np.nan)), control="dens")
    with pytest.raises(EquistrideError, match="elements that the model does not know: Cl"):
        task(network, replace(frames, numbers=np.array([6, 7, 8, 9, 17])))
    with pytest.raises(EquistrideError, match="do not move"):
        task(network, replace(frames, positions=np.repeat(frames.positions[:1], len(frames), 0)))
    scalars = EquiformerConfig.model_validate(
        SMALL | {k: [4] for k in ("channels", "hidden_channels", "head_channels")}
    )
    with pytest.raises(EquistrideError, match="no vectors, from which a displacement could be read"):
        task(Equiformer(scalars, 5).double(), frames)
    for wrong in (
        {"control": "noise", "frames": 2},
        {"mode": "single", "frames": 2},
        {"control": "dens", "mode": "history"},
        {"readout": "gradient"},
        VERLET | {"mode": "pair"},
        VERLET | {"control": "noise"},
    ):
        with pytest.raises(ValidationError):
            FramesConfig.model_validate(wrong)
