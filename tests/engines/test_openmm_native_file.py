"""TorchForce files that run by equistride's library (``export --for openmm --fused``): the plugin's numbers, in openmm-torch's
contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import openmm
import pytest
import torch
from ase import Atoms
from openmm_systems import context, energy_forces
from random_models import random_potential

from equistride.artifact.export import save_potential
from equistride.data.quartz import quartz
from equistride.engines.openmm import Force, create_system
from equistride.engines.openmm_export import write_torchforce
from equistride.engines.openmm_structure import topology_from_ase
from equistride.errors import EquistrideError
from equistride.importers.fairchem import import_fairchem
from equistride.models.esen import ESENConfig

FAIRCHEM = Path(__file__).resolve().parents[1] / "data" / "fairchem"
BOUND = {"float64": 1e-10, "float32": 1e-6}
"""The same kernels on the same numbers; in float32 sums over threads and units may round the last bit."""


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network in both precisions, as `equistride export` writes it."""
    sizes = {"cutoff": 4.0, "num_layers": 2, "channels": 8, "hidden_channels": 8, "edge_channels": 8}
    made = {dtype: tmp_path_factory.mktemp("fused") / f"{dtype}.pt" for dtype in BOUND}
    for dtype, path in made.items():
        config = ESENConfig.model_validate(sizes)
        assert save_potential(random_potential(**sizes), config, path, dtype=dtype, fused=True, provenance={}).fused
    return made


def structure(name: str) -> Atoms:
    """A crystal, a skewed cell narrower than two cutoffs, a cluster, or four molecules in a box."""
    if name == "molecules":
        one = Atoms("SiO2", [[0, 0, 0], [1.5, 0.2, 0], [-1.3, 0.8, 0.3]])
        places = [[1, 1, 1], [6, 1.5, 1], [1.2, 6, 1.4], [6, 6, 6]]
        atoms = sum((Atoms(one.symbols, one.positions + place) for place in places), Atoms(cell=[10, 10, 10], pbc=True))
    else:
        atoms = quartz((1, 1, 1) if name == "narrow" else (2, 2, 1))
        atoms.pbc = name != "cluster"
    atoms.rattle(0.05, seed=4)
    atoms.positions += 700.0  # where float32 has four digits left
    return atoms


def from_file(file: Path, atoms: Atoms, box: bool, **parameters: float) -> tuple[float, np.ndarray]:
    """Energy [kJ/mol] and forces [kJ/mol/nm] of a file as a module of the TorchForce contract."""
    force = Force(file, periodic=box)
    force.setOutputsForces(True)
    for name, value in parameters.items():
        force.addGlobalParameter(name, value)
    system = openmm.System()
    for _ in atoms:
        system.addParticle(1.0)
    topology, positions = topology_from_ase(atoms)
    if box:
        system.setDefaultPeriodicBoxVectors(*topology.getPeriodicBoxVectors())
    system.addForce(force)
    return energy_forces(context(system, np.array(positions._value) * 10))


def of_plugin(artifact: Path, atoms: Atoms, **system: float) -> tuple[float, np.ndarray]:
    topology, positions = topology_from_ase(atoms)
    made = create_system(artifact, topology, backend="plugin", **system)  # type: ignore[arg-type]
    return energy_forces(context(made, np.array(positions._value) * 10))


def assert_alike(found: tuple[float, np.ndarray], expected: tuple[float, np.ndarray], bound: float) -> None:
    assert found[0] == pytest.approx(expected[0], rel=bound)
    assert np.abs(found[1] - expected[1]).max() <= bound * np.abs(expected[1]).max()


def command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "equistride.cli.main", "export", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("name", ["crystal", "narrow", "cluster", "molecules"])
def test_the_numbers_of_the_plugin(fused: dict[str, Path], tmp_path: Path, name: str, dtype: str) -> None:
    atoms = structure(name)
    box = write_torchforce(fused[dtype], tmp_path / "force.pt", topology_from_ase(atoms)[0], fused=True)
    assert box == (name != "cluster")
    expected = of_plugin(fused[dtype], atoms)
    assert_alike(from_file(tmp_path / "force.pt", atoms, box), expected, BOUND[dtype])
    assert np.abs(expected[1]).max() > 1.0


def test_in_another_precision(fused: dict[str, Path], tmp_path: Path) -> None:
    atoms = structure("crystal")
    topology, _ = topology_from_ase(atoms)
    write_torchforce(fused["float32"], tmp_path / "force.pt", topology, dtype="float64", fused=True)
    expected = of_plugin(fused["float32"], atoms, precision="float64")  # type: ignore[arg-type]
    assert_alike(from_file(tmp_path / "force.pt", atoms, True), expected, BOUND["float64"])


def test_charge_and_spin(tmp_path: Path) -> None:
    """Of the file, and as parameters of the force, which openmm-torch hands over after the positions."""
    stored = np.load(FAIRCHEM / "L2M2_omol.npz")
    atoms = Atoms(stored["ethanol_numbers"], stored["ethanol_positions"])
    import_fairchem(FAIRCHEM / "L2M2_omol.pt", tmp_path / "omol.pt", dtype="float64")
    write_torchforce(tmp_path / "omol.pt", tmp_path / "force.pt", topology_from_ase(atoms)[0], fused=True)
    neutral = from_file(tmp_path / "force.pt", atoms, False)
    assert_alike(neutral, of_plugin(tmp_path / "omol.pt", atoms), 1e-10)
    cation = from_file(tmp_path / "force.pt", atoms, False, charge=1.0, spin=2.0)
    assert_alike(cation, of_plugin(tmp_path / "omol.pt", atoms, charge=1, spin=2), 1e-10)
    assert abs(cation[0] - neutral[0]) > 0.1
    write_torchforce(tmp_path / "omol.pt", tmp_path / "stock.pt", topology_from_ase(atoms)[0])
    with pytest.raises(openmm.OpenMMException, match=r"charge and spin are fixed in this file; .*--fused"):
        from_file(tmp_path / "stock.pt", atoms, False, charge=1.0, spin=2.0)


def test_frozen_and_by_the_command_line(fused: dict[str, Path], tmp_path: Path) -> None:
    """openmm-torch freezes the module, and gives positions in either precision."""
    atoms = structure("crystal")
    atoms.positions -= 700.0
    atoms.write(tmp_path / "quartz.extxyz")
    target, source = tmp_path / "force.pt", tmp_path / "quartz.extxyz"
    done = command(fused["float32"], "--for", "openmm", "--fused", "--structure", source, "-o", target)
    assert done.returncode == 0, done.stderr
    module = torch.jit.freeze(torch.jit.load(str(target)).eval())
    results = []
    for dtype in (torch.float64, torch.float32):
        positions = torch.tensor(atoms.positions / 10, dtype=dtype, requires_grad=True)
        energy, forces = module(positions, torch.tensor(atoms.cell.array / 10, dtype=dtype))
        assert forces.dtype == dtype
        assert not forces.requires_grad
        results.append((energy.item(), forces.double().numpy()))
    assert_alike(results[0], results[1], 1e-5)  # positions are rounded before


SCRIPT = """
import sys
import numpy as np, torch
if sys.argv[3] == "first":
    import equistride
    assert equistride.load_operators() == equistride.load_operators()
    assert not any(name.startswith(("ase", "pydantic", "e3nn", "openmm")) for name in sys.modules)
frame = np.load(sys.argv[2])
energy, forces = torch.jit.load(sys.argv[1])(torch.tensor(frame["positions"]), torch.tensor(frame["box"]))
print(repr(energy.item()))
"""


def test_a_script_loads_the_operators_first(fused: dict[str, Path], tmp_path: Path) -> None:
    atoms = structure("crystal")
    topology, _ = topology_from_ase(atoms)
    write_torchforce(fused["float64"], tmp_path / "force.pt", topology, fused=True)
    np.savez(tmp_path / "frame.npz", positions=atoms.positions / 10, box=atoms.cell.array / 10)

    def run(first: str) -> subprocess.CompletedProcess[str]:
        words = [str(tmp_path / "force.pt"), str(tmp_path / "frame.npz"), first]
        return subprocess.run([sys.executable, "-c", SCRIPT, *words], capture_output=True, text=True, timeout=300)

    done = run("first")
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(of_plugin(fused["float64"], atoms)[0], rel=1e-10)
    assert "Unknown type name '__torch__.torch.classes.equistride.Model'" in run("never").stderr


def test_refusals(fused: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "force.pt"
    with pytest.raises(EquistrideError, match="does not know: C"):
        write_torchforce(fused["float32"], target, ["C", "Si"], fused=True)
    assert "--fused is for --for openmm" in command(fused["float32"], "--fused", "-o", target).stderr
    assert not target.exists()
    atoms = structure("cluster")
    write_torchforce(fused["float32"], target, topology_from_ase(atoms)[0], fused=True)
    atoms.positions[3] = atoms.positions[5]
    with pytest.raises(openmm.OpenMMException, match="on top of each other"):
        from_file(target, atoms, False)


class Opens(torch.nn.Module):
    """A force field that opens a file of its choice when it runs."""

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        model = torch.classes.equistride.Model(None, "other.pt", True)
        model.set_system(1.0, 1.0)
        return positions.sum()


def test_a_file_that_makes_a_model_itself_is_refused(fused: dict[str, Path], tmp_path: Path) -> None:
    """It may hold one, which is read as any artifact; and an artifact may hold none."""
    torch.jit.script(Opens()).save(str(tmp_path / "opens.pt"))
    with pytest.raises(EquistrideError, match=r"makes a __torch__\.torch\.classes\.equistride\.Model"):
        from_file(tmp_path / "opens.pt", structure("cluster"), False)
