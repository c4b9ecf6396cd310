"""A batched call gives what calls frame by frame give, for frames of any size, cell and composition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from faulty_potentials import argon, write_argon
from random_models import random_potential, write_artifact

from equistride.artifact import Frame, Model, load
from equistride.artifact.outputs import BatchOutputs
from equistride.errors import EquistrideError


def frames_of(model: Model, quartz_atoms: Atoms) -> list[Frame]:
    """A crystal, its like of another size in a skewed cell, a molecule, one atom alone, a slab."""
    species = model.species_index(quartz_atoms.get_chemical_symbols())
    positions, cell = quartz_atoms.positions, quartz_atoms.cell.array
    skewed = cell @ np.array([[0.55, 0.1, 0], [0, 0.5, 0.05], [0, 0, 0.5]])
    random = np.random.default_rng(3)
    return [
        Frame(positions, species, cell, True),
        Frame(random.uniform(size=(7, 3)) @ skewed, species[:7], skewed, True),
        Frame(np.array([[0, 0, 0], [0, 0.2, 1.6], [1.5, 0, -0.3]]), [1, 0, 0]),
        Frame([[5.0, 6.0, 7.0]], [0]),
        Frame(torch.tensor(positions[:20], dtype=torch.float32), species[:20], cell, [True, False, True]),
    ]


def compared(found: BatchOutputs, model: Model, frames: list[Frame], tolerance: float) -> None:
    single = [model.compute(*frame) for frame in frames]
    assert found.energies.dtype == torch.float64
    assert len(found.energies) == len(frames)
    for k, one in enumerate(single):
        assert abs(found.energies[k] - one.atomic_energies.sum()) < tolerance * len(one.forces)
        assert (found.virials[k] - one.virial).abs().max() < tolerance * max(1, one.virial.abs().max())
    assert (found.forces - torch.cat([one.forces for one in single])).abs().max() < tolerance
    assert (found.atomic_energies - torch.cat([one.atomic_energies for one in single])).abs().max() < tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
def test_joined_frames_equal_single_ones(
    random_artifact64: Path, quartz_atoms: Atoms, dtype: torch.dtype, tolerance: float
) -> None:
    model = load(random_artifact64, dtype=dtype)
    assert model.metadata.capabilities.batched
    frames = frames_of(model, quartz_atoms)
    compared(model.compute_batch(frames), model, frames, tolerance)
    with torch.inference_mode():
        compared(model.compute_batch(frames[2:]), model, frames[2:], tolerance)
    compared(model.compute_batch(frames[3:4]), model, frames[3:4], tolerance)


def test_a_module_without_the_method_is_run_frame_by_frame(tmp_path: Path) -> None:
    model = load(write_argon(tmp_path / "argon.pt", "none"))
    atoms = argon()
    atoms.rattle(0.1, seed=1)
    frames = [Frame(atoms.positions, [0] * 32, atoms.cell.array, True), Frame(atoms.positions[:5], [0] * 5)]
    assert not model.metadata.capabilities.batched
    compared(model.compute_batch(frames), model, frames, 1e-12)


def test_forces_that_are_no_gradient_are_not_replaced_by_one(tmp_path: Path) -> None:
    """A module whose forward gives other forces than the gradient keeps them in a batch."""

    class Louder(type(random_potential())):  # type: ignore[misc]
        def forward(self, positions, species, cell, edge_index, shifts):  # type: ignore[no-untyped-def]
            vectors = positions.index_select(0, edge_index[1]) - positions.index_select(0, edge_index[0])
            energies = self.atomic_energies(vectors + torch.matmul(shifts.to(cell.dtype), cell), species, edge_index)
            return energies, positions * 0.5, cell * 2.0

    potential = random_potential()
    potential.__class__ = Louder
    model = load(write_artifact(potential, tmp_path / "loud.pt", "float64"))
    frames = [Frame(np.eye(3) * 2, [0, 1, 0]), Frame(np.eye(3) * 3, [0, 1, 1])]
    compared(model.compute_batch(frames), model, frames, 1e-12)
    assert torch.allclose(model.compute_batch(frames).forces[0], torch.tensor([1.0, 0, 0], dtype=torch.float64))


def test_bad_frames_are_one_sentence(random_artifact64: Path) -> None:
    model = load(random_artifact64)
    good = Frame(np.eye(3) * 2, [0, 1, 0])
    for bad, said in (
        (Frame([[0, 0, 0], [0, 0, 1e-5]], [0, 1]), "frame 1: atoms 0 and 1 are on top of each other"),
        (Frame([[0, 0, np.nan], [0, 0, 1.0]], [0, 1]), "position of atom 0 is not finite"),
        (Frame(np.zeros((0, 3)), []), "empty system"),
        (Frame(np.eye(3), [0, 1, 7]), "index of atom 2 is not one of the model"),
        (Frame(np.eye(3), [0, 1, 0], np.zeros((3, 3)), True), "independent, finite vectors"),
    ):
        with pytest.raises(EquistrideError, match=said) as info:
            model.compute_batch([good, bad])
        assert "\n" not in str(info.value)
    with pytest.raises(EquistrideError, match="no frames to evaluate"):
        model.compute_batch([])


def test_the_file_may_go_once_it_is_loaded(tmp_path: Path) -> None:
    frames = [Frame(np.eye(3) * 2, [0, 1, 0])] * 2
    path = write_artifact(random_potential(), tmp_path / "gone.pt", "float64")
    model, content = load(path), path.read_bytes()
    path.unlink()
    assert model.compute_batch(frames).energies.shape == (2,)
    again = load(content)
    assert torch.equal(again.compute_batch(frames).forces, model.compute_batch(frames).forces)


def test_energies_alone_and_a_part_of_a_system(random_artifact64: Path, quartz_atoms: Atoms) -> None:
    """Forces of a part are those of its energy on all atoms; parts add up to the whole."""
    model = load(random_artifact64)
    system = (model.species_index(quartz_atoms.get_chemical_symbols()), quartz_atoms.cell.array, True)
    whole = model.compute(quartz_atoms.positions, *system)
    assert torch.equal(model.energies(quartz_atoms.positions, *system), whole.atomic_energies)
    first = model.compute_part(quartz_atoms.positions, *system, owned=30)
    assert torch.allclose(first.atomic_energies, whole.atomic_energies[:30], rtol=0, atol=1e-12)
    order = np.roll(np.arange(72), -30)  # the others first
    rest = model.compute_part(quartz_atoms.positions[order], system[0][order], *system[1:], owned=42)
    together = first.forces + rest.forces[np.argsort(order)]
    assert torch.allclose(together, whole.forces, rtol=0, atol=1e-11)
    assert torch.allclose(first.virial + rest.virial, whole.virial, rtol=0, atol=1e-10)
    with pytest.raises(EquistrideError, match="number of own atoms is out of range; expected 0 to 72"):
        model.compute_part(quartz_atoms.positions, *system, owned=73)
