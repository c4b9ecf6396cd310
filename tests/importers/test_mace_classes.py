"""Every form of MACE that the import reads, with mace-torch's own numbers: random networks of ``benchmarks/mace_golden.py``."""

from __future__ import annotations

import lzma
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.data import chemical_symbols
from typer.testing import CliRunner

from equistride.artifact import load
from equistride.cli import import_
from equistride.cli.main import app
from equistride.engines.ase import EquistrideCalculator
from equistride.errors import EquistrideError
from equistride.graph import neighbor_list
from equistride.importers import mace_file
from equistride.importers.mace import import_mace, potential_of
from equistride.models.potential import ConservativePotential
from equistride.models.serving import plain, serving

FILES = Path(__file__).parents[1] / "data" / "mace"
NETWORKS = [
    ("residual", "Default"), ("density", "pbe"), ("density", "r2scan"), ("omol", "Default"), ("heads", "omat"),
    ("heads", "omol"), ("mixed", "Default"),
]  # fmt: skip


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mace")
    for packed in FILES.glob("*.xz"):
        (folder / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))
    return folder


def frames(name: str, head: str) -> dict[str, dict[str, Any]]:
    """Return the structures and mace-torch's numbers of one head, by structure, charge and spin."""
    with np.load(FILES / f"{name}.npz") as content:
        found: dict[str, dict[str, Any]] = {}
        for key in content.files:
            place, what = key.split("/")
            if place.startswith(f"{head}:"):
                found.setdefault(place, {})[what] = content[key]
    return found


def system_of(place: str, names: set[str]) -> tuple[float, float]:
    """Return charge and spin of a structure, for a network that knows these; what it does not know is neutral."""
    charge, spin = map(float, place.split(":")[2:])
    return charge if "charge" in names else 0.0, spin if "spin" in names else 1.0


def deviation(potential: ConservativePotential, name: str, head: str) -> float:
    """Return the largest deviation of energies, forces and virials [eV, eV/A, eV], as a share of the largest where above 1."""
    network: Any = potential.network
    names = {feature.name for feature in network.config.features}
    worst = 0.0
    for place, frame in frames(name, head).items():
        if names:
            network.set_system(*system_of(place, names))
        positions, cell, pbc = (torch.tensor(frame[what]) for what in ("positions", "cell", "pbc"))
        species = torch.tensor([potential.species.index(chemical_symbols[z]) for z in frame["numbers"]])
        found = potential(positions, species, cell, *neighbor_list(positions, cell, pbc, potential.cutoff))
        for what, values in zip(("energies", "forces", "virial"), found, strict=True):
            error = np.abs(values.detach().numpy() - frame[what]).max()
            worst = max(worst, error / max(1.0, np.abs(frame[what]).max()))
    return worst


@pytest.mark.parametrize(("name", "head"), NETWORKS)
def test_numbers_are_those_of_mace(name: str, head: str, unpacked: Path) -> None:
    """To rounding in float64, also with atoms that are almost too close; fused, and in torch's own operators."""
    potential, _ = potential_of(unpacked / f"{name}.model", head="" if head == "Default" else head)
    for form in (potential, serving(potential, "float64"), plain(potential)):
        assert deviation(form, name, head) < 1e-12


@pytest.mark.parametrize(("name", "head"), [("omol", "Default"), ("heads", "omol"), ("mixed", "Default")])
def test_gated_layers_in_float32(name: str, head: str, unpacked: Path, tmp_path: Path) -> None:
    """Tables stand for networks of pairs of elements, one for each direction: 2e-5 eV/A, or as much of the largest force."""
    metadata = import_mace(
        unpacked / f"{name}.model",
        tmp_path / "m.pt",
        head="" if head == "Default" else head,
        elements=["O", "Si"],
    )
    assert metadata.fused
    assert metadata.spline_error is not None
    assert 0.0 < metadata.spline_error < 1e-6
    assert metadata.capabilities.decomposable
    names = set(metadata.system) if name != "heads" else {"charge"}
    calculator = EquistrideCalculator(tmp_path / "m.pt")
    for place, frame in frames(name, head).items():
        if ":ethanol:" in place:
            continue
        atoms = Atoms(frame["numbers"], frame["positions"], cell=frame["cell"], pbc=frame["pbc"])
        if names:
            atoms.info["charge"], atoms.info["spin"] = map(int, system_of(place, names))
        atoms.calc = calculator
        largest = np.abs(frame["forces"]).max()
        assert np.abs(atoms.get_forces() - frame["forces"]).max() < 2e-5 * max(1.0, largest)


def test_charge_and_spin_are_set(unpacked: Path, tmp_path: Path) -> None:
    """A whole number that the tables do not have is refused, and so is the spin of a network that knows none."""
    metadata = import_mace(unpacked / "omol.model", tmp_path / "m.pt", dtype="float64")
    assert metadata.charge_spin == "input"
    assert metadata.system == {"charge": 0.0, "spin": 1.0}
    frame = frames("omol", "Default")["Default:ethanol:-2:3"]
    model = load(tmp_path / "m.pt")
    species = model.species_index([chemical_symbols[z] for z in frame["numbers"]])
    before = model.compute(frame["positions"], species, frame["cell"], False)
    model.set_system(-2.0, 3.0)
    after = model.compute(frame["positions"], species, frame["cell"], False)
    np.testing.assert_allclose(after.forces.numpy(), frame["forces"], rtol=0, atol=1e-10)
    assert np.abs(before.forces.numpy() - frame["forces"]).max() > 1e-3
    with pytest.raises(Exception, match=r"not taught this charge; expected -10.* to 10.*, found 11"):
        model.set_system(11.0, 1.0)
    import_mace(unpacked / "heads.model", tmp_path / "h.pt", head="omol", dtype="float64", elements=["O"])
    with pytest.raises(Exception, match="not taught this spin"):
        load(tmp_path / "h.pt").set_system(0.0, 3.0)


def test_elements_that_are_not_wanted_are_left_out(unpacked: Path) -> None:
    whole, _ = potential_of(unpacked / "mixed.model")
    few, config = potential_of(unpacked / "mixed.model", ["Si", "O"])
    assert few.species == ["Si", "O"]
    assert config.divisors == ("density", "nonlinear")
    positions = torch.tensor([[0.0, 0.0, 0.0], [1.5, 0.2, 0.1], [0.2, 1.7, 0.3]], dtype=torch.float64)
    graph = neighbor_list(positions, torch.zeros(3, 3, dtype=torch.float64), False, 4.0)
    outs = [
        form(
            positions,
            torch.tensor([form.species.index(s) for s in ("Si", "O", "O")]),
            torch.zeros(3, 3).double(),
            *graph,
        )
        for form in (whole, few)
    ]
    for a, b in zip(*outs, strict=True):
        assert (a - b).abs().max() < 1e-13 * a.abs().max()


def changed(change: Any, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the next read of ``path`` give its content with a change."""
    root = mace_file.read_file(path, "")
    change(root)
    monkeypatch.setattr(mace_file, "read_file", lambda *_: root)


def first(root: Any, name: str) -> Any:
    return next(iter(root.attribute(name).state["_modules"].values()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda root: root.state["embedding_specs"].update(total_spin={"type": "categorical", "per": "node"}),
         r"an embedding that the import does not know \(total_spin\); expected .*, found categorical per node|total_spin"),
        (lambda root: root.state["embedding_specs"].update(elec_temp={"type": "continuous", "per": "graph"}), "elec_temp"),
        (lambda root: root.state["embedding_specs"]["total_charge"].pop("emb_dim"), r"cannot be read \(KeyError: 'emb_dim'\)"),
        (lambda root: first(root, "interactions").attribute("equivariant_nonlin").state.update(_gate_cst=1.679),
         "a gate with other functions"),
        (lambda root: first(root, "interactions").state["_parameters"].update(gamma=torch.ones(3)),
         r"weights that the import does not know; expected none; found interactions\.0\.gamma"),
        (lambda root: root.attribute("embedding_readout").attribute("linear").state["_buffers"].update(bias=torch.ones(1)),
         r"embedding_readout\.linear\.bias"),
        (lambda root: root.attribute("radial_embedding").attribute("cutoff_fn").state["_buffers"].update(
            r_max=torch.tensor(5.0)), "two cutoffs; expected 4.0; found 5.0"),
        (lambda root: root.attribute("radial_embedding").state.update(apply_cutoff=True),
         "cannot conserve energy .* jump as an atom crosses the cutoff.*apply_cutoff=False"),
        (lambda root: setattr(type(first(root, "products").attribute("symmetric_contractions")), "origin",
                              "cuequivariance_torch.operations.symmetric_contraction.SymmetricContraction"), "cuEquivariance"),
        (lambda root: setattr(type(root), "origin", "mace.modules.extensions.MACELES"), "LES"),
        (lambda root: setattr(type(root), "origin", "mace.modules.extensions.PolarMACE"), "POLAR"),
        (lambda root: setattr(type(root), "origin", "mace.modules.models.AtomicDipolesMACE"), "dipoles and no energy"),
    ],
)  # fmt: skip
def test_what_the_import_does_not_read_is_refused(
    change: Any, reason: str, unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed(change, unpacked / "omol.model", monkeypatch)
    with pytest.raises(EquistrideError, match=reason):
        import_mace(unpacked / "omol.model", tmp_path / "m.pt")
    assert not (tmp_path / "m.pt").exists()


def test_a_step_at_the_cutoff_is_imported_where_it_is_wanted(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metadata say so, no table smoothes it, and energies do jump."""
    changed(
        lambda root: root.attribute("radial_embedding").state.update(apply_cutoff=True),
        unpacked / "omol.model",
        monkeypatch,
    )
    metadata = import_mace(unpacked / "omol.model", tmp_path / "m.pt", elements=["H", "O"], allow_nonconservative=True)
    assert not metadata.conservative
    assert metadata.spline_error == 0.0
    model = load(tmp_path / "m.pt")
    near, beyond = (
        model.compute(
            np.array([[0.0, 0.0, 0.0], [x, 0.0, 0.0]]), model.species_index(["O", "H"]), np.zeros((3, 3)), False
        )
        for x in (3.9999, 4.0001)
    )
    assert abs(float((near.atomic_energies - beyond.atomic_energies).sum())) > 1e-4


def test_the_licence_is_asked_of_who_sits_there(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file of MACE says it; what is typed is in the metadata."""
    monkeypatch.setattr(import_, "sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    command = ["import", "mace", str(unpacked / "mixed.model"), "-o", str(tmp_path / "m.pt"), "--elements", "O"]
    done = CliRunner().invoke(app, [*command, "--dtype", "float64"], input="ASL\n")
    assert done.exit_code == 0, done.output
    assert "Licence of the weights" in done.output
    assert load(tmp_path / "m.pt").metadata.licence == "ASL"
