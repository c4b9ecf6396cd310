"""Import of MACE's models: mace-torch's own numbers, through the artifact and in engines, and what must be refused.

``mace-a`` and ``mace-b`` are random networks that mace-torch 0.3.16 wrote, with its outputs in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from typer.testing import CliRunner

from equistride.artifact import load
from equistride.cli.main import app
from equistride.engines.ase import EquistrideCalculator
from equistride.errors import EquistrideError
from equistride.graph import neighbor_list
from equistride.importers import mace_file
from equistride.importers.common import loaded
from equistride.importers.foreign import Record
from equistride.importers.mace import import_mace, potential_of
from equistride.models.mace import MACE
from equistride.models.mace_config import MACEConfig
from equistride.models.potential import ConservativePotential
from equistride.models.serving import plain, serving

STRUCTURES = ["copper", "ethanol", "mgo_slab", "nacl", "quartz9", "water"]
HEADS = [("mace-a", ""), ("mace-b", "pbe"), ("mace-b", "r2scan")]


def golden(shared_data: Path, name: str) -> tuple[Path, Any]:
    folder = shared_data / "golden-foreign"
    return folder / f"{name}.model", np.load(folder / f"{name}.npz")


def deviations(potential: ConservativePotential, at: Any, head: str) -> dict[str, float]:
    """Return the largest deviations of atomic energies, forces and virials, as shares of the largest of each structure."""
    worst = {"energies": 0.0, "forces": 0.0, "virial": 0.0}
    for structure in STRUCTURES:
        key = f"{head}:{structure}" if head else structure
        positions, cell, pbc = (torch.tensor(at[f"{key}/{what}"]) for what in ("positions", "cell", "pbc"))
        symbols = [chemical_symbols[z] for z in at[f"{key}/numbers"]]
        species = torch.tensor([potential.species.index(s) for s in symbols])
        found = potential(positions, species, cell, *neighbor_list(positions, cell, pbc, potential.cutoff))
        for name, values in zip(worst, found, strict=True):
            expected = at[f"{key}/{name}"]
            worst[name] = max(worst[name], np.abs(values.numpy() - expected).max() / np.abs(expected).max())
    return worst


@pytest.mark.parametrize(("name", "head"), HEADS)
def test_numbers_are_those_of_mace(name: str, head: str, shared_data: Path) -> None:
    """Residual and density classes, Agnesi, ZBL, two heads, a first layer without residual; to rounding in float64."""
    path, at = golden(shared_data, name)
    potential, config = potential_of(path, head=head)
    for form in (potential, serving(potential, "float64"), plain(potential)):
        assert max(deviations(form, at, head).values()) < 1e-12
    assert (config.transform, config.divisors[0]) == (("none", "number") if name == "mace-a" else ("agnesi", "density"))


@pytest.mark.parametrize(("name", "head"), HEADS[:2])
def test_the_artifact_in_float32(name: str, head: str, shared_data: Path, tmp_path: Path) -> None:
    """Rounding and tables together: 2e-5 eV/A, or as much of a force of hundreds of eV/A."""
    path, at = golden(shared_data, name)
    metadata = import_mace(path, tmp_path / "model.pt", elements=["H", "C", "O", "Si"], head=head, licence="ASL")
    assert metadata.fused
    assert metadata.spline_error is not None
    assert metadata.spline_error < 1e-6
    assert metadata.message_passing_steps == 2
    assert metadata.capabilities.decomposable
    assert metadata.capabilities.padded
    assert metadata.weights["program"] == "mace-torch"
    assert metadata.weights["licence"] == "ASL"
    calculator = EquistrideCalculator(tmp_path / "model.pt")
    for structure in ("ethanol", "quartz9", "water"):
        key = f"{head}:{structure}" if head else structure
        atoms = Atoms(at[f"{key}/numbers"], at[f"{key}/positions"], cell=at[f"{key}/cell"], pbc=at[f"{key}/pbc"])
        atoms.calc = calculator
        expected = at[f"{key}/forces"]
        assert np.abs(atoms.get_forces() - expected).max() < 2e-5 * max(1.0, np.abs(expected).max())
        assert atoms.get_potential_energy() == pytest.approx(at[f"{key}/energies"].sum(), abs=1e-5 * len(atoms))


def test_the_command_says_what_it_made(shared_data: Path, tmp_path: Path) -> None:
    path, at = golden(shared_data, "mace-b")
    command = [
        "import",
        "mace",
        str(path),
        "-o",
        str(tmp_path / "b.pt"),
        "--head",
        "pbe",
        "--dtype",
        "float64",
        "--plain",
    ]
    done = CliRunner().invoke(app, [*command, "--elements", "O,Si"])
    assert done.exit_code == 0, done.output
    assert "mace potential for 2 elements" in done.output
    assert "licence: not stated in the file; ask its authors" in " ".join(done.output.split())
    model = load(tmp_path / "b.pt")
    assert not model.metadata.fused
    species = model.species_index([chemical_symbols[z] for z in at["pbe:quartz9/numbers"]])
    out = model.compute(at["pbe:quartz9/positions"], species, at["pbe:quartz9/cell"], True)
    np.testing.assert_allclose(out.forces.numpy(), at["pbe:quartz9/forces"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(out.virial.numpy(), at["pbe:quartz9/virial"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("transform", ["none", "agnesi", "soft"])
def test_splines_of_all_transforms(transform: str) -> None:
    """Also with the envelope after the network, and a length that depends on the pair."""
    parameters = {"none": (), "agnesi": (1.0805, 4.5791, 0.9183), "soft": (4.0,)}[transform]
    config = MACEConfig(
        cutoff=4.0, channels=4, l_max=2, radial_widths=(8,), divisors=("density", "density"), transform=transform,  # type: ignore[arg-type]
        transform_parameters=parameters, envelope_last=True, correlation=(2, 3), avg_num_neighbors=(8.0, 8.0),
    )  # fmt: skip
    torch.manual_seed(0)
    radii, numbers = [0.66, 1.11], [atomic_numbers[s] for s in ("O", "Si")]
    network = MACE(config, 2, numbers=numbers, radii=radii).double()
    potential = ConservativePotential(network, ["O", "Si"], 4.0, 1.0, [0.0, 0.0])
    positions = torch.rand(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4.0
    frame = (positions, torch.tensor([0, 1, 0, 0, 1, 0, 0, 1]), torch.eye(3, dtype=torch.float64) * 5.0)
    graph = neighbor_list(frame[0], frame[2], True, 4.0)
    expected = potential(*frame, *graph)
    scripted = torch.jit.script(ConservativePotential(network.served(1e-7, 0.1), ["O", "Si"], 4.0, 1.0, [0.0, 0.0]))
    for found, wanted in zip(scripted(*frame, *graph), expected, strict=True):
        assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()  # slopes are ten times rougher


class Changed:
    """Stands for a file whose root has other attributes."""

    def __init__(self, root: Record) -> None:
        self.root = root


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda root: root.state.update(use_so3=True), "use_so3"),
        (lambda root: root.state["_modules"].update(les=Record()), r"a part that the import does not know \(les\)"),
        (
            lambda root: setattr(type(next(iter(root.attribute("interactions").state["_modules"].values()))), "origin",
                                 "mace.modules.blocks.RealAgnosticAttResidualInteractionBlock"),
            "RealAgnosticAttResidualInteractionBlock",
        ),
        (lambda root: setattr(type(root), "origin", "mace.modules.models.EnergyDipolesMACE"), "is a EnergyDipolesMACE"),
        (lambda root: setattr(type(root), "origin", "torch.nn.Linear"), "not a model of MACE; .* found torch.nn.Linear"),
        (lambda root: root.attribute("node_embedding").state["_modules"].clear(), "node_embedding.linear.weight"),
        (
            lambda root: root.attribute("scale_shift").state["_buffers"].update(scale=torch.tensor(torch.nan)),
            "not finite",
        ),
    ],
)  # fmt: skip
def test_other_networks_are_refused_by_name(
    change: Any, reason: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = golden(shared_data, "mace-a")
    root = mace_file.read_file(path, "")
    change(root)
    monkeypatch.setattr(mace_file, "read_file", lambda *_: root)
    with pytest.raises(EquistrideError, match=reason):
        potential_of(path)


def test_choices_that_the_file_does_not_have(shared_data: Path) -> None:
    path, _ = golden(shared_data, "mace-b")
    with pytest.raises(EquistrideError, match="trained on several sets of labels; expected pbe, r2scan"):
        potential_of(path)
    with pytest.raises(EquistrideError, match="no such head; expected pbe, r2scan; found omol"):
        potential_of(path, head="omol")
    with pytest.raises(EquistrideError, match="does not know the element U; expected H, C, O"):
        potential_of(path, ["O", "U"], "pbe")


def test_a_weight_that_nobody_gave_is_missed() -> None:
    """A network must not keep a random weight where an import has none for it."""
    network = MACE(MACEConfig(cutoff=3.0, channels=2, l_max=1, radial_widths=(2,), correlation=(1, 1)), 1).double()
    state = network.state_dict()
    del state["layers.1.mix.weight"]
    with pytest.raises(EquistrideError, match=r"do not fit its configuration \(Missing key"):
        loaded(network, state, ["O"], [0.0])
