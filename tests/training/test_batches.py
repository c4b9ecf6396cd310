"""Batches of graphs: the same numbers as one frame at a time, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_models import CUTOFF, SPECIES, graph_of, random_potential

from equistride.data.frames import Frames, load
from equistride.data.quartz import quartz
from equistride.errors import EquistrideError
from equistride.training.data import GraphDataset, collate, read, split
from equistride.training.module import errors, predict


def crystal(count: int, repeats: tuple[int, int, int], seed: int) -> Frames:
    """Displaced quartz cells with labels of no meaning."""
    rng = np.random.default_rng(seed)
    atoms = quartz(repeats)
    shape = (count, len(atoms), 3)
    return Frames(
        numbers=atoms.numbers.astype(np.int64),
        positions=atoms.positions + 0.05 * rng.normal(size=shape),
        cell=np.repeat(atoms.cell.array[None], count, 0),
        pbc=np.ones(3, bool),
        energy=rng.normal(size=count) - 100,
        forces=rng.normal(size=shape),
        virial=rng.normal(size=(count, 3, 3)),
        segment=np.arange(count) // 2,
    )


def test_a_batch_equals_its_frames_one_by_one() -> None:
    potential = random_potential()
    groups = [crystal(2, (1, 1, 1), 1), crystal(1, (2, 1, 1), 2)]
    dataset = GraphDataset(groups, SPECIES, CUTOFF, torch.float64)
    batch = collate([dataset[k] for k in range(3)])
    assert batch.num_frames == 3
    assert batch.atoms_per_frame.tolist() == [9, 9, 18]
    energies, forces, virials = predict(potential, batch, create_graph=False)
    start = 0
    for k, (frames, which) in enumerate(((groups[0], 0), (groups[0], 1), (groups[1], 0))):
        positions, cell = torch.tensor(frames.positions[which]), torch.tensor(frames.cell[which])
        e, f, v = potential(*graph_of(positions, torch.tensor(frames.numbers == 14).long(), cell))
        stop = start + len(e)
        assert float(energies[k]) == pytest.approx(float(e.sum()), abs=1e-10)
        assert torch.allclose(forces[start:stop], f, rtol=0, atol=1e-10)
        assert torch.allclose(virials[k], v, rtol=0, atol=1e-10)
        assert torch.equal(batch.forces[start:stop], torch.tensor(frames.forces[which]))
        start = stop


def test_frames_without_virial_do_not_enter_its_loss() -> None:
    labelled = crystal(2, (1, 1, 1), 1)
    dataset = GraphDataset([labelled, replace(labelled, virial=None)], SPECIES, CUTOFF, torch.float64)
    error = errors(random_potential(), collate([dataset[k] for k in range(4)]), create_graph=False)["virial"]
    assert (error[:2] != 0).all()
    assert (error[2:] == 0).all()


def test_elements_outside_the_model_are_refused() -> None:
    with pytest.raises(EquistrideError, match="elements that the model does not know: Si; expected O, C"):
        GraphDataset([crystal(1, (1, 1, 1), 1)], ["O", "C"], CUTOFF, torch.float64)


def test_a_split_shares_no_frame_and_depends_on_its_seed() -> None:
    frames = crystal(40, (1, 1, 1), 3)
    parts = [split([frames], 0.2, seed) for seed in range(4)]
    for (training,), (validation,) in parts:
        held = {f.tobytes() for f in validation.positions}
        assert held.isdisjoint(f.tobytes() for f in training.positions)
        assert len(held) == 8
        assert set(validation.segment).isdisjoint(training.segment)
    assert len({tuple(v.segment) for _, (v,) in parts}) > 1
    single = split([replace(frames, segment=None)], 0.01, 0)
    assert [len(p) for (p,) in single] == [39, 1]


def test_files_of_every_kind_and_their_faults(tmp_path: Path) -> None:
    frames = crystal(4, (1, 1, 1), 1)
    frames.save(tmp_path / "a.npz")
    (back,) = read(["a.npz"], tmp_path)
    np.testing.assert_array_equal(back.virial, frames.virial)

    def refusal(name: str) -> str:
        with pytest.raises(EquistrideError) as info:
            load(tmp_path / name)
        assert name in str(info.value)
        assert "\n" not in str(info.value)
        return str(info.value)

    whole = (tmp_path / "a.npz").read_bytes()
    for length in (0, 10, 500, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        assert "cannot be read" in refusal("cut.npz")
    (tmp_path / "cut.extxyz").write_text("3\nenergy=1 Properties=species:S:1:pos:R:3:forces:R:3\nSi 0 0 0 0 0 0\nO 1")
    assert "cannot be read" in refusal("cut.extxyz")
    (tmp_path / "empty.extxyz").write_text("")
    refusal("empty.extxyz")
    (tmp_path / "noise.db").write_bytes(np.random.default_rng(1).bytes(3000))
    assert "cannot be read" in refusal("noise.db")
    (tmp_path / "a.csv").write_text("x")
    assert "unknown type; expected .npz, .extxyz, .xyz or .db; found .csv" in refusal("a.csv")
    assert "does not exist" in refusal("none.npz")
    np.savez(tmp_path / "bare.npz", z=frames.numbers, R=frames.positions)
    assert "lacks the arrays ['energy', 'forces']" in refusal("bare.npz")
    np.savez(tmp_path / "pickled.npz", z=np.array([frames], dtype=object))
    assert "cannot be read" in refusal("pickled.npz")  # and not loaded
    for name in ("energy", "forces", "positions"):
        values = getattr(frames, name).copy()
        values[2] = np.nan
        replace(frames, **{name: values}).save(tmp_path / "nan.npz")
        assert f"NaN or infinite value in '{name}', frame 2" in refusal("nan.npz")
    np.savez(
        tmp_path / "odd.npz",
        z=frames.numbers,
        R=frames.positions,
        E=frames.energy,
        F=frames.forces[:, :-1],
        e_unit="eV",
    )
    assert "'forces' of" in refusal("odd.npz")
    np.savez(
        tmp_path / "odd.npz", z=frames.numbers[:-1], R=frames.positions, E=frames.energy, F=frames.forces, e_unit="eV"
    )
    assert "expected shape [4, 8, 3]; found shape [4, 9, 3]" in refusal("odd.npz")
