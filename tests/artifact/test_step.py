"""A step in tensors of fixed size, as engines take it on a GPU, gives what the step of exact lists gives.

Here it is taken on the CPU; on a machine with a GPU the same tests replay the captured graph (`-m cuda`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import trajcast_systems as systems
from random_models import random_potential, write_artifact
from torch import Tensor, nn
from toy_metadata import toy_metadata

from equistride.artifact.archive import save
from equistride.artifact.native import open_native
from equistride.artifact.propagators import save_propagator
from equistride.data.quartz import quartz
from equistride.models.potential import ConservativePotential
from equistride.models.serving import serving

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]
EXACT = 1e-11  # of the largest number: float64, of which sums go another way round
PERIODIC, OPEN = torch.tensor([True] * 3), torch.tensor([False] * 3)


class System(NamedTuple):
    """Arguments of the native model's methods."""

    positions: Tensor
    velocities: Tensor | None
    species: Tensor
    cell: Tensor
    pbc: Tensor

    def at(self, positions: Tensor) -> System:
        """The same atoms elsewhere."""
        return self._replace(positions=positions)


def solid(seed: int = 1, strain: float = 1.0) -> System:
    """Displaced quartz of 72 atoms."""
    atoms = quartz((2, 2, 2))
    atoms.rattle(0.05, seed=seed)
    species = torch.tensor([int(symbol == "Si") for symbol in atoms.get_chemical_symbols()])
    return System(
        torch.tensor(strain * atoms.positions), None, species, torch.tensor(strain * atoms.cell.array), PERIODIC
    )


def molecule() -> System:
    """Fourteen atoms in the open."""
    frame = systems.cluster(14)
    return System(1.5 * frame.positions, None, frame.species, torch.zeros(3, 3).double(), OPEN)


def flying() -> System:
    """The same in motion: it drifts and turns."""
    return molecule()._replace(velocities=systems.cluster(14).velocities)


def moving() -> System:
    """A skewed periodic cell of 27 atoms in motion."""
    frame = systems.crystal()
    return System(frame.positions, frame.velocities, frame.species, frame.cell, PERIODIC)


CASES = {
    "esen": (solid, molecule),
    "fused": (solid, molecule),
    "trajcast": (moving, flying),
    "tables": (moving, flying),
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of random weights, in float64."""
    folder = tmp_path_factory.mktemp("steps")
    paths = {name: folder / f"{name}.pt" for name in CASES}
    write_artifact(random_potential(), paths["esen"], "float64")
    write_artifact(serving(random_potential(), "float64"), paths["fused"], "float64")
    save_propagator(systems.propagator(), paths["trajcast"], dtype="float64")
    save_propagator(systems.propagator(), paths["tables"], dtype="float64", tables=1e-6)
    return paths


def opened(path: Path, device: str, double: bool = True) -> Any:
    """The native model."""
    model = open_native(path, verify=False)
    model.to(device, double)
    return model


def assert_same(model: Any, system: System, tolerance: float = EXACT) -> None:
    """The step against exact lists, on the CPU."""
    stepped = [t.cpu() for t in model.step(*system)]
    assert model.capacity() > 0
    model.to("cpu", True)
    expected = model.compute(*system, True)
    for found, wanted in zip(stepped, expected, strict=True):
        assert wanted.abs().max() > 0
        assert found.shape == wanted.shape
        assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "periodic"), [(name, flag) for name in CASES for flag in (True, False)])
def test_steps_equal_exact_lists(name: str, periodic: bool, device: str, artifacts: dict[str, Path]) -> None:
    system = CASES[name][0 if periodic else 1]()
    assert_same(opened(artifacts[name], device), system)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_a_walk_through_one_graph(name: str, device: str, artifacts: dict[str, Path]) -> None:
    """Positions, velocities and the cell of each step are seen; room for edges is made as a crystal shrinks."""
    system = CASES[name][0]()
    stepping, exact = opened(artifacts[name], device), opened(artifacts[name], "cpu")
    rooms = []
    for k in range(6):
        strain = (1.0, 0.99, 1.01, 0.93, 1.0, 0.9)[k]
        now = system._replace(positions=system.positions * strain, cell=system.cell * strain)
        if system.velocities is not None:
            now = now._replace(velocities=system.velocities * (1 + 0.1 * k))
        for found, wanted in zip(stepping.step(*now), exact.compute(*now, True), strict=True):
            assert (found.cpu() - wanted).abs().max() <= EXACT * wanted.abs().max()
        rooms.append(stepping.capacity())
    assert rooms[0] == rooms[2]
    assert rooms[-1] > rooms[0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["esen", "fused", "tables"])
def test_single_precision(name: str, device: str, artifacts: dict[str, Path]) -> None:
    """A float32 network beside the float64 one: the rounding of its few hundred operations."""
    system = CASES[name][0]()
    model = opened(artifacts[name], device, double=False)
    for found, wanted in zip(model.step(*system), opened(artifacts[name], "cpu").compute(*system, True), strict=True):
        assert (found.cpu() - wanted).abs().max() <= 2e-5 * wanted.abs().max()


@pytest.mark.parametrize("device", DEVICES)
def test_atoms_that_left_the_box_and_another_system(device: str, artifacts: dict[str, Path]) -> None:
    model, exact = opened(artifacts["fused"], device), opened(artifacts["fused"], "cpu")
    system = solid()
    far = (
        system.positions
        + torch.randint(-40, 40, (72, 3), generator=torch.Generator().manual_seed(0)).double() @ system.cell
    )
    for now in (system, system.at(far), molecule(), system):
        for found, wanted in zip(model.step(*now), exact.compute(*now, True), strict=True):
            assert (found.cpu() - wanted).abs().max() <= 1e-9 * wanted.abs().max()  # 300 A from the origin


@pytest.mark.parametrize("device", DEVICES)
def test_momenta_are_kept(device: str, artifacts: dict[str, Path]) -> None:
    """Of the crystal the momentum, of the cluster the angular momentum too; padding takes none of either."""
    for system, frame in ((moving(), systems.crystal()), (flying(), systems.cluster(14))):
        before = frame._replace(positions=system.positions)
        displacements, velocities = (t.cpu() for t in opened(artifacts["tables"], device).step(*system))
        after = before.after(displacements, velocities)
        assert (after.momentum() - before.momentum()).abs().max() < 1e-13
        if not system.pbc.any():
            assert (after.spin() - before.spin()).abs().max() < 1e-12


def wrong_inputs() -> dict[str, tuple[str, System, str]]:
    """Artifact, system, and what is said of it."""
    system, stride = solid(), flying()
    lost, together, near = system.positions.clone(), system.positions.clone(), stride.positions.clone()
    lost[7, 1] = float("nan")
    together[5] = together[3]
    near[2] = near[4] + torch.tensor([0.0, 0.0, 0.3])
    assert stride.velocities is not None
    fast = stride.velocities.clone()
    fast[6] = torch.tensor([0.0, 0.06, 0.0])
    return {
        "not finite": ("fused", system.at(lost), "the position of atom 7 is not finite"),
        "coincident": ("fused", system.at(together), "atoms 3 and 5 are on top of each other"),
        "flat cell": ("fused", system._replace(cell=system.cell[[0, 1, 1]]), "the cell must have independent"),
        "too near": ("tables", stride.at(near), "atoms 2 and 4 are 30 pm apart, closer than the model's tables reach"),
        "too fast": (
            "tables",
            stride._replace(velocities=fast),
            "atom 6 moves at .* m/s, faster than the model covers",
        ),
        "lost speed": ("tables", stride._replace(velocities=fast * torch.nan), "the velocity of atom 0 is not finite"),
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("case", wrong_inputs())
def test_errors_name_the_atom_and_the_next_step_is_right(case: str, device: str, artifacts: dict[str, Path]) -> None:
    name, system, said = wrong_inputs()[case]
    sound = solid() if name == "fused" else flying()
    model, exact = opened(artifacts[name], device), opened(artifacts[name], "cpu")
    model.step(*sound)
    for _ in range(2):
        with pytest.raises((RuntimeError, ValueError), match=said):
            model.step(*system)
        for found, wanted in zip(model.step(*sound), exact.compute(*sound, True), strict=True):
            assert (found.cpu() - wanted).abs().max() <= EXACT * wanted.abs().max()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["fused", "tables"])
def test_callers_in_any_mode_of_torch(name: str, device: str, artifacts: dict[str, Path]) -> None:
    system = CASES[name][0]()
    model, wanted = opened(artifacts[name], device), opened(artifacts[name], "cpu").compute(*system, True)
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            mine = system._replace(species=system.species.clone(), cell=system.cell.clone())
            found = [t.cpu().clone() for t in model.step(*mine)]
        for ours, theirs in zip(found, wanted, strict=True):
            assert (ours - theirs).abs().max() <= EXACT * theirs.abs().max()


@pytest.mark.parametrize("shape", [None, (3,), (1, 3), (27, 1)])
def test_velocities_that_do_not_fit(shape: tuple[int, ...] | None, artifacts: dict[str, Path]) -> None:
    system = moving()._replace(velocities=None if shape is None else torch.zeros(shape, dtype=torch.float64))
    with pytest.raises((RuntimeError, ValueError), match="a propagator needs velocities of the shape of the positions"):
        opened(artifacts["tables"], "cpu").step(*system)


def test_a_cap_on_neighbours_takes_no_padding(tmp_path: Path) -> None:
    """It counts edges, for which a GPU would have to be waited for."""
    path = write_artifact(random_potential(max_neighbors=20), tmp_path / "capped.pt", "float64")
    model, system = opened(path, "cpu"), solid()
    for found, wanted in zip(model.step(*system), opened(path, "cpu").compute(*system, True), strict=True):
        assert (found - wanted).abs().max() <= EXACT * wanted.abs().max()
    assert model.capacity() == 0


class Brittle(nn.Module):
    """Sound while bonds are longer than 0.9 A, as in the self-test; no number where one is shorter."""

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        r = torch.linalg.vector_norm(vectors, dim=1)
        return torch.zeros_like(species, dtype=r.dtype).index_add(0, edge_index[0], (r - 0.9).sqrt())


@pytest.mark.parametrize("device", DEVICES)
def test_outputs_that_are_not_finite(device: str, tmp_path: Path) -> None:
    potential = ConservativePotential(Brittle(), ["O", "Si"], 3.0, 1.0, [0.0, 0.0]).double()
    save(potential, toy_metadata(["O", "Si"], 3.0), tmp_path / "brittle.pt")
    model, system = opened(tmp_path / "brittle.pt", device), solid()
    close = system._replace(positions=0.5 * system.positions, cell=0.5 * system.cell)

    def steps() -> None:  # on a GPU nobody waits for the first one's outputs
        model.step(*close)
        model.step(*close)

    model.step(*system)
    with pytest.raises((RuntimeError, ValueError), match="not finite"):
        steps()
    assert_same(model, system)


def test_a_model_that_takes_no_padding_is_evaluated_with_exact_lists(tmp_path: Path) -> None:
    class Whole(nn.Module):
        def forward(
            self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            return positions.square().sum(1), -2 * positions, torch.matmul(positions.t(), 2 * positions)

    save(Whole(), toy_metadata(["O", "Si"], 3.0), tmp_path / "w.pt")
    model = opened(tmp_path / "w.pt", "cpu")
    energies, forces, _ = model.step(*molecule())
    assert model.capacity() == 0
    assert energies.shape == (14,)
    assert torch.equal(forces, -2 * molecule().positions) or forces.abs().max() > 0
