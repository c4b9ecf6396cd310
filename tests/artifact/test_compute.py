"""Evaluating an artifact: forms of input that are equal, and input that is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from openmm import unit
from random_models import graph_of, random_potential, write_artifact
from torch.utils._python_dispatch import TorchDispatchMode

from equistride.artifact import Model, load
from equistride.errors import EquistrideError

POSITIONS = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.6], [1.5, 0.0, 0.0]])
SPECIES = [1, 0, 0]
BOX = 8.0 * np.eye(3)


@pytest.fixture(scope="module")
def model(random_artifact64: Path) -> Model:
    return load(random_artifact64)


def test_outputs_have_their_types_and_shapes(model: Model, random_artifact32: Path) -> None:
    for loaded, dtype in ((model, torch.float64), (load(random_artifact32), torch.float32)):
        energies, forces, virial = loaded.compute(POSITIONS, SPECIES)
        assert (energies.dtype, forces.dtype, virial.dtype) == (torch.float64, dtype, dtype)
        assert (energies.shape, forces.shape, virial.shape) == ((3,), (3, 3), (3, 3))
        assert not any(t.requires_grad for t in (energies, forces, virial))


def test_equal_input_in_other_forms(model: Model) -> None:
    expected = model.compute(POSITIONS, SPECIES, BOX, True)
    tensor = torch.tensor(POSITIONS, requires_grad=True)
    for positions, species, cell, pbc in (
        (POSITIONS.tolist(), np.array(SPECIES, np.int32), BOX.tolist(), [True] * 3),
        (tensor, torch.tensor(SPECIES), torch.tensor(BOX), torch.ones(3, dtype=torch.bool)),
        (np.asfortranarray(POSITIONS), SPECIES, BOX.astype(np.float32), np.ones(3, bool)),
        (np.repeat(POSITIONS, 2, 0)[::2], SPECIES, BOX, True),
        (POSITIONS[::-1].copy()[::-1], tuple(SPECIES), BOX, True),
    ):
        for a, b in zip(model.compute(positions, species, cell, pbc), expected, strict=True):
            assert torch.equal(a, b)
    assert torch.equal(tensor.detach(), torch.tensor(POSITIONS))  # input is not touched


def test_elements_in_place_of_indices(model: Model) -> None:
    expected = model.compute(POSITIONS, model.species_index(["Si", "O", "O"]))
    for species in (["Si", "O", "O"], np.array(["Si", "O", "O"]), ("Si", "O", "O")):
        assert torch.equal(model.compute(POSITIONS, species).forces, expected.forces)
    with pytest.raises(EquistrideError, match=r"does not know: Xe"):
        model.compute(POSITIONS, ["Si", "O", "Xe"])


def test_quantities_are_refused(model: Model) -> None:
    """NumPy would drop their unit."""
    with pytest.raises(EquistrideError, match=r"positions must be plain numbers.*expected A.*nanometer"):
        model.compute(POSITIONS / 10 * unit.nanometer, SPECIES)
    with pytest.raises(EquistrideError, match=r"the cell must be plain numbers"):
        model.compute(POSITIONS, SPECIES, BOX * unit.angstrom, True)


def test_calls_do_not_depend_on_calls_before(model: Model, quartz_atoms: Atoms) -> None:
    first = model.compute(POSITIONS, SPECIES)
    model.compute(
        quartz_atoms.positions, model.species_index(quartz_atoms.numbers.tolist()), quartz_atoms.cell.array, True
    )
    for a, b in zip(model.compute(POSITIONS, SPECIES), first, strict=True):
        assert torch.equal(a, b)


class Matrices(TorchDispatchMode):
    """Notes the shape of the right factor of each matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def __torch_dispatch__(
        self, function: Any, types: object, arguments: tuple[Any, ...] = (), settings: dict[str, Any] | None = None
    ) -> Any:
        if str(function).startswith(("aten.mm", "aten.bmm", "aten.addmm", "aten.baddbmm")):
            self.seen.append(tuple(arguments[1 + ("add" in str(function))].shape))
        return function(*arguments, **(settings or {}))


def test_no_matrix_product_places_atoms(random_artifact32: Path, quartz_atoms: Atoms) -> None:
    """Lattice vectors times the cell: where torch may round products to TF32, neighbours would be 0.005 A off."""
    model = load(random_artifact32)
    species = model.species_index(quartz_atoms.get_chemical_symbols())
    with Matrices() as matrices:
        model.compute(quartz_atoms.positions.astype(np.float32), species, quartz_atoms.cell.array, True)
        through_torchscript = len(matrices.seen)
        positions, cell = torch.tensor(quartz_atoms.positions).float(), torch.tensor(quartz_atoms.cell.array).float()
        random_potential().float()(*graph_of(positions, species, cell))
    assert 0 < through_torchscript < len(matrices.seen)
    assert (3, 3) not in matrices.seen


def test_a_single_atom_is_fine(model: Model) -> None:
    energies, forces, virial = model.compute(POSITIONS[:1], [1])
    assert torch.isfinite(energies).all()
    assert forces.abs().max() == virial.abs().max() == 0
    _, forces, virial = model.compute(POSITIONS[:1], [1], 3.0 * np.eye(3), True)  # its own images, by symmetry no force
    assert forces.abs().max() < 1e-12
    assert virial.abs().max() > 1e-6


def test_precision_can_be_chosen_and_loses_nothing(random_artifact32: Path, random_artifact64: Path) -> None:
    """Both files store float64 weights; the metadata says in which precision they run."""
    precise = load(random_artifact32, dtype=torch.float64).compute(POSITIONS, SPECIES)
    for a, b in zip(precise, load(random_artifact64).compute(POSITIONS, SPECIES), strict=True):
        assert torch.equal(a, b)
    rounded = load(random_artifact32).compute(POSITIONS, SPECIES)
    assert (rounded.forces.double() - precise.forces).abs().max() < 1e-5 * precise.forces.abs().max()


@pytest.mark.parametrize(
    ("positions", "species", "cell", "pbc", "said"),
    [
        (np.where(POSITIONS == 1.6, np.nan, POSITIONS), SPECIES, None, False, "position of atom 1 is not finite"),
        (np.where(POSITIONS == 1.5, np.inf, POSITIONS), SPECIES, BOX, True, "position of atom 2 is not finite"),
        (POSITIONS * [1, 1, 0], SPECIES, None, False, "atoms 0 and 1 are on top of each other"),
        (
            np.add(POSITIONS, [[0, 0, 0], [0, 0, 6.4], [0, 0, 0]]),
            SPECIES,
            BOX,
            True,
            "atoms 0 and 1 are on top of each other",
        ),
        (np.zeros((0, 3)), [], None, False, "found an empty system"),
        (POSITIONS[:, :2], SPECIES, None, False, r"expected shape \[N, 3\]; found shape \[3, 2\]"),
        (POSITIONS[0], SPECIES, None, False, r"expected shape \[N, 3\]"),
        ("quartz", SPECIES, None, False, "array of numbers"),
        (POSITIONS + 1j, SPECIES, None, False, "real numbers"),
        (POSITIONS, [1, 0], None, False, r"one index an atom; expected int64 of shape \[3\]"),
        (POSITIONS, [1.0, 0.0, 0.0], None, False, "one index an atom"),
        (POSITIONS, [1, 0, 2], None, False, "index of atom 2 is not one of the model; expected 0 to 1; found 2"),
        (POSITIONS, [1, -1, 0], None, False, "index of atom 1 is not one of the model"),
        (POSITIONS, SPECIES, None, True, "the cell must have independent, finite vectors"),
        (POSITIONS, SPECIES, np.full((3, 3), np.nan), True, "the cell must have independent, finite vectors"),
        (POSITIONS, SPECIES, BOX[[0, 1, 1]], True, "the cell must have independent, finite vectors"),
        (POSITIONS, SPECIES, [8.0, 8.0, 8.0], True, "three lattice vectors"),
        (POSITIONS, SPECIES, BOX, [True, False], "1 or 3 flags; found 2"),
        (POSITIONS, SPECIES, 1e-3 * np.eye(3), True, "the box is too small: .*found 0.001 A"),
    ],
)
def test_bad_input_is_one_sentence(model: Model, positions: Any, species: Any, cell: Any, pbc: Any, said: str) -> None:
    with pytest.raises(EquistrideError, match=said) as info:
        model.compute(positions, species, cell, pbc)
    assert "\n" not in str(info.value)


def test_elements_that_the_model_does_not_know(model: Model) -> None:
    assert model.species_index(["Si", "O"]).tolist() == model.species_index([14, 8]).tolist() == [1, 0]
    with pytest.raises(EquistrideError, match="does not know: Au, C; expected O, Si"):
        model.species_index(["Au", "O", "C"])
    for number, said in (
        (0, r"atom 0 of the structure \(X\) has no element"),
        (-3, "atomic number -3"),
        (200, "atomic number 200"),
    ):
        with pytest.raises(EquistrideError, match=said):
            model.species_index([number])


def test_a_periodic_model_wants_a_box(tmp_path: Path) -> None:
    model = load(write_artifact(random_potential(), tmp_path / "crystal.pt", "float64", periodic="required"))
    model.compute(POSITIONS, SPECIES, BOX, True)
    for pbc in (False, [True, True, False]):
        with pytest.raises(
            EquistrideError, match="trained on periodic systems alone; expected a box along all three axes"
        ):
            model.compute(POSITIONS, SPECIES, BOX, pbc)


def test_a_potential_does_not_propagate(model: Model) -> None:
    with pytest.raises(EquistrideError, match="cannot propagate; expected a propagator; found a potential"):
        model.propagate(POSITIONS, POSITIONS, SPECIES)


def test_devices_and_precisions_that_are_not_there(random_artifact64: Path) -> None:
    with pytest.raises(EquistrideError, match="device 'toaster' cannot be used"):
        load(random_artifact64, device="toaster")
    if not torch.cuda.is_available():
        with pytest.raises(EquistrideError, match="device 'cuda' cannot be used"):
            load(random_artifact64, device="cuda")
    with pytest.raises(EquistrideError, match="precision is not known"):
        load(random_artifact64, dtype=torch.float16)
