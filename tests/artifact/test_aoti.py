"""The AOTInductor container: the numbers of TorchScript through every interface, at all sizes, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from random_models import CUTOFF, SPECIES, graph_of, random_potential
from rewritten import rewritten
from torch._inductor import config as inductor
from toy_metadata import toy_metadata
from trajcast_systems import Frame, cluster, crystal, propagator

from equistride.artifact import Frame as Structure
from equistride.artifact import load
from equistride.artifact.aoti import trace
from equistride.artifact.ensemble import combine
from equistride.artifact.export import export, save_potential
from equistride.artifact.metadata import Metadata
from equistride.artifact.propagators import save_propagator
from equistride.data.quartz import quartz
from equistride.errors import EquistrideError
from equistride.models.equiformer import EquiformerConfig
from equistride.models.potential import ConservativePotential, edge_vectors

pytestmark = pytest.mark.skipif(
    not hasattr(inductor.cpp, "march"), reason="torch before 2.13 compiles for no given instruction set"
)
compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler: install g++"
)
SIZES = {"cutoff": CUTOFF, "num_layers": 2, "channels": 4, "hidden_channels": 4, "edge_channels": 4}
TINY = {**SIZES, "num_layers": 1, "l_max": 1, "m_max": 1}


def checkpoint(folder: Path, sizes: dict[str, object]) -> Path:
    """What `equistride train` writes, with random weights."""
    potential = random_potential(2, **sizes)
    facts = {
        "config": {"name": "toy", "model": {"architecture": "esen", **sizes}},
        "species": SPECIES,
        "scale": potential.scale,
        "references": potential.references,
    }
    weights = {f"model.{name}": value for name, value in potential.state_dict().items()}
    torch.save({"state_dict": weights, "equistride": facts, "global_step": 5}, folder / "toy.ckpt")
    return folder / "toy.ckpt"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small potential, fused and in double precision, in both containers."""
    folder = tmp_path_factory.mktemp("aoti")
    source = checkpoint(folder, TINY)
    paths = {"torchscript": folder / "toy.pt", "aoti": folder / "toy.pt2"}
    for container, path in paths.items():
        export(source, path, dtype="float64", container=container)  # type: ignore[arg-type]
    assert sorted(p.name for p in folder.iterdir()) == ["toy.ckpt", "toy.pt", "toy.pt2"]
    return paths


def structures() -> dict[str, Atoms]:
    """Crystals of several sizes and shapes, and open systems down to one atom."""
    bulk = quartz((2, 2, 2))
    bulk.rattle(0.05, seed=3)
    cell = quartz()
    cell.rattle(0.05, seed=4)
    cell.set_cell(cell.cell.array @ (np.eye(3) + np.diag([0.04, 0.02], 1)), scale_atoms=True)
    return {
        "72 atoms": bulk,
        "9 atoms": cell,
        "slab": Atoms(cell, pbc=(True, True, False)),
        "three": Atoms("OSiO", positions=[[0, 0, 0], [1.6, 0.1, 0], [1.9, 1.5, 0.3]]),
        "two": Atoms("SiO", positions=[[0, 0, 0], [1.6, 0.1, 0]]),
        "two apart": Atoms("SiO", positions=[[0, 0, 0], [9.0, 0.1, 0]]),
        "one": Atoms("Si", positions=[[0.3, 0, 0]]),
        "one with images": Atoms("O", positions=[[0.3, 0, 0]], cell=[3.0, 3.5, 3.9], pbc=True),
    }


def compare(paths: dict[str, Path], atoms: Atoms, bound: float) -> None:
    """Energies, forces and virial are equal, relative to the largest of each."""
    models = [load(paths[container], trust_compiled=True) for container in ("torchscript", "aoti")]
    kinds = models[0].species_index(atoms.get_chemical_symbols())
    expected, found = (model.compute(atoms.positions, kinds, atoms.cell.array, atoms.pbc) for model in models)
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= bound * max(1.0, float(one.abs().max()))


@compiler
@pytest.mark.parametrize("name", structures())
def test_numbers_are_torchscripts(pair: dict[str, Path], name: str) -> None:
    """The example that was traced has 13 atoms and 29 edges."""
    compare(pair, structures()[name], 1e-10)


@compiler
def test_metadata_say_what_it_was_compiled_for(pair: dict[str, Path]) -> None:
    scripted, compiled = (load(pair[container], trust_compiled=True).metadata for container in ("torchscript", "aoti"))
    assert scripted.compiled is None
    target = compiled.compiled
    assert target is not None
    assert torch.__version__.startswith(target.torch)
    assert (target.device, target.machine, target.exchanges) == ("cpu", os.uname().machine, 1)
    assert (target.cutoff, compiled.capabilities.padded) == (CUTOFF, False)  # a program has no spare atoms
    assert set(compiled.operators) >= {"equistride::exchange"}
    same = {"compiled": None, "capabilities": scripted.capabilities, "operators": scripted.operators}
    assert compiled.model_copy(update=same) == scripted
    with zipfile.ZipFile(pair["aoti"]) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".cpp")]


@compiler
def test_ase_and_openmm_give_the_same_forces(pair: dict[str, Path]) -> None:
    import openmm

    from equistride.engines.ase import EquistrideCalculator
    from equistride.engines.openmm import create_system
    from equistride.engines.openmm_structure import topology_from_ase

    atoms = structures()["72 atoms"]
    atoms.calc = EquistrideCalculator(pair["torchscript"])
    expected, stress = atoms.get_forces(), atoms.get_stress()
    atoms.calc = EquistrideCalculator(pair["aoti"], trust_compiled=True)
    assert np.abs(atoms.get_forces() - expected).max() < 1e-10
    assert np.abs(atoms.get_stress() - stress).max() < 1e-12
    topology, positions = topology_from_ase(atoms)
    found = []
    for path in pair.values():
        context = openmm.Context(create_system(path, topology, trust_compiled=True), openmm.VerletIntegrator(1e-3))
        context.setPositions(positions)
        state = context.getState(energy=True, forces=True)
        found.append((state.getPotentialEnergy()._value, state.getForces(asNumpy=True)._value))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-8)  # kJ/mol
    assert np.abs(found[0][1] - found[1][1]).max() < 1e-8  # kJ/mol/nm


@compiler
def test_many_frames_and_what_a_program_has_not(pair: dict[str, Path], tmp_path: Path) -> None:
    model = load(pair["aoti"], trust_compiled=True)
    frames = [
        Structure(a.positions, model.species_index(a.get_chemical_symbols()), a.cell.array, a.pbc)
        for a in structures().values()
        if not a.pbc[0] or a.pbc.all()
    ]
    found, expected = model.compute_batch(frames), load(pair["torchscript"]).compute_batch(frames)
    for one, other in zip(expected, found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)
    with pytest.raises(EquistrideError, match="no uncertainty"):
        model.uncertainty(*frames[0])
    with pytest.raises(EquistrideError, match="a compiled program, which cannot be changed"):
        combine([pair["torchscript"], pair["aoti"]], tmp_path / "two.pt")
    from equistride.engines.openmm_export import write_torchforce

    with pytest.raises(EquistrideError, match="expected a TorchScript artifact"):
        write_torchforce(pair["aoti"], tmp_path / "force.pt", ["Si"])


@compiler
def test_another_precision_or_device_is_refused(pair: dict[str, Path]) -> None:
    for options in ({"dtype": torch.float32}, {"device": "cuda"}):
        with pytest.raises(EquistrideError, match="is compiled, and runs as it is; expected float64 on cpu"):
            load(pair["aoti"], trust_compiled=True, **options)
    assert load(pair["aoti"], dtype=torch.float64, trust_compiled=True).dtype == torch.float64


def edited(source: Path, target: Path, record: str, change: dict[str, Any]) -> Path:
    """Copy an artifact with some keys of a JSON record changed; None takes a key away."""

    def edit(name: str, content: bytes) -> bytes:
        if not name.endswith(f"extra/{record}"):
            return content
        facts = json.loads(content)
        for key, value in change.items():
            place = facts
            *folders, last = key.split(".")
            for folder in folders:
                place = place[folder]
            place[last] = value
        return json.dumps(facts).encode()

    return rewritten(source, target, edit)


@compiler
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"compiled.torch": "2.9.1"}, "was compiled for another torch; expected 2."),
        ({"compiled.torch": "2.130.0"}, "was compiled for another torch"),
        ({"compiled.device": "cuda"}, "was compiled for another device; expected cpu; found cuda"),
        ({"compiled.machine": "riscv64"}, "was compiled for another kind of processor"),
        ({"compiled.instruction_set": "avx1024"}, "expected one of portable, avx2, avx512"),
        ({"compiled": None}, "does not say what it was compiled for"),
    ],
)
def test_another_target_is_refused(
    pair: dict[str, Path], tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    path = edited(pair["aoti"], tmp_path / "other.pt2", "metadata.json", change)
    with pytest.raises(EquistrideError) as info:
        load(path, trust_compiled=True)
    assert sentence in str(info.value)
    assert "other.pt2" in str(info.value) or "compiled" in str(info.value)
    assert "\n" not in str(info.value)


@compiler
def test_a_processor_that_can_less_is_refused(
    pair: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = edited(pair["aoti"], tmp_path / "wide.pt2", "metadata.json", {"compiled.instruction_set": "avx2"})
    monkeypatch.setenv("EQUISTRIDE_SIMD", "portable")
    with pytest.raises(EquistrideError, match="another instruction set; expected portable at most; found avx2"):
        load(path, trust_compiled=True)


@compiler
def test_a_program_that_computes_something_else_is_refused(pair: dict[str, Path], tmp_path: Path) -> None:
    forces = [[0.0] * 3] * 8
    path = edited(pair["aoti"], tmp_path / "wrong.pt2", "reference.json", {"outputs.forces": forces})
    with pytest.raises(EquistrideError, match="does not reproduce its reference frame"):
        load(path, trust_compiled=True)


@compiler
@pytest.mark.parametrize("share", [0.0, 1e-3, 0.5, 0.99, 1.0])
def test_truncated_and_damaged_files_are_refused(pair: dict[str, Path], tmp_path: Path, share: float) -> None:
    whole = pair["aoti"].read_bytes()
    at = min(int(share * len(whole)), len(whole) - 1)
    path = tmp_path / "cut.pt2"
    path.write_bytes(whole[:at])
    with pytest.raises(EquistrideError, match=r"cut\.pt2"):
        load(path, trust_compiled=True)
    if 0.1 < share < 0.9:
        path.write_bytes(whole[:at] + bytes(256) + whole[at + 256 :])
        with pytest.raises(EquistrideError, match=r"cut\.pt2"):
            load(path, trust_compiled=True)


@compiler
def test_nothing_stays_among_the_temporary_files(
    pair: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    model = load(pair["aoti"], trust_compiled=True)
    assert list((tmp_path / "temporary").iterdir()) == []
    atoms = structures()["three"]
    assert model.compute(atoms.positions, model.species_index(atoms.get_chemical_symbols())).forces.shape == (3, 3)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(EquistrideError, match=r"TMPDIR|temporary"):
        load(pair["aoti"], trust_compiled=True)


@compiler
def test_threads_share_a_model_and_load_their_own(pair: dict[str, Path]) -> None:
    shared, cases = load(pair["aoti"], trust_compiled=True), list(structures().values())

    def forces(model: Any, atoms: Atoms) -> torch.Tensor:
        kinds = shared.species_index(atoms.get_chemical_symbols())
        return model.compute(atoms.positions, kinds, atoms.cell.array, atoms.pbc).forces

    expected = [forces(shared, atoms) for atoms in cases] * 4
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda atoms: forces(shared, atoms), cases * 4))
        alone = list(pool.map(lambda atoms: forces(load(pair["aoti"], trust_compiled=True), atoms), cases))
    assert all(torch.equal(a, b) for a, b in zip(expected, together, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(expected, alone, strict=False))


def esen() -> ConservativePotential:
    return random_potential(1, **SIZES)


def equiformer() -> ConservativePotential:
    from equistride.artifact.export import build_potential

    sizes = {"num_layers": 2, "channels": [6, 4], "hidden_channels": [6, 4], "head_channels": [3, 2], "num_heads": 2}
    config = EquiformerConfig.model_validate(
        {**sizes, "cutoff": CUTOFF, "scalar_channels": 8, "num_basis": 6, "radial_channels": 8, "smooth": True}
    )
    torch.manual_seed(4)
    return build_potential(config, {"species": SPECIES, "scale": 1.3, "references": [-3.1, -5.7]}).double()


def facts_of(kind: str, dtype: str = "float64", **more: object) -> Metadata:
    return toy_metadata(SPECIES, CUTOFF, layers=3, kind=kind, num_layers=2, dtype=dtype, **more)


@pytest.mark.parametrize("build", [esen, equiformer])
def test_the_traced_potential_is_the_network_at_another_size(build: Any) -> None:
    potential = build()
    program, arguments = trace(potential, facts_of("potential"))
    assert sum(node.target is torch.ops.equistride.exchange.default for node in program.graph.nodes) == 2 * (
        build is esen
    )
    atoms = structures()["9 atoms"]
    graph = graph_of(
        torch.tensor(atoms.positions), torch.tensor(atoms.numbers == 14).long(), torch.tensor(atoms.cell.array)
    )
    assert len(atoms) != len(arguments[1])
    vectors = edge_vectors(graph.positions, graph.cell, graph.edge_index, graph.shifts)
    weights = torch.ones(9, dtype=torch.float64)
    energies, gradient = program(vectors, graph.species, graph.edge_index, weights)
    expected = potential(*graph)
    assert torch.allclose(energies, expected[0], rtol=0, atol=1e-11)
    assert torch.allclose(-vectors.t() @ gradient, expected[2], rtol=0, atol=1e-10)


class Looking(torch.nn.Module):
    """A network that looks at a value."""

    def forward(self, vectors: torch.Tensor, species: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
        """Return energies that are not the same function for all vectors."""
        squares = vectors.square().sum(1) if float(vectors.sum()) > 0 else vectors.sum(1)
        return squares.new_zeros(len(species)).index_add(0, edge_index[0], squares)


def test_what_cannot_be_compiled_is_refused(tmp_path: Path) -> None:
    looking = ConservativePotential(Looking(), SPECIES, CUTOFF, 1.0, [0.0, 0.0])
    with pytest.raises(EquistrideError, match=r"the model cannot be compiled .*--container torchscript") as info:
        trace(looking, facts_of("potential"))
    assert "\n" not in str(info.value)
    source = checkpoint(tmp_path, {**SIZES, "forces": "direct"})
    with pytest.raises(EquistrideError, match=r"direct forces cannot be compiled; expected forces that are a gradient"):
        export(source, tmp_path / "no.pt2", container="aoti", allow_nonconservative=True)
    with pytest.raises(EquistrideError, match="the container is not known; expected torchscript or aoti"):
        export(checkpoint(tmp_path, TINY), tmp_path / "no.pt2", container="onnx")  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["toy.ckpt"]


def test_a_machine_without_a_compiler_is_told_so(tmp_path: Path) -> None:
    from torch._inductor import config

    with config.patch({"cpp.cxx": ("/no/such/compiler",)}), pytest.raises(EquistrideError, match="no C"):
        export(checkpoint(tmp_path, TINY), tmp_path / "no.pt2", dtype="float64", container="aoti")
    assert [p.name for p in tmp_path.iterdir()] == ["toy.ckpt"]


@pytest.fixture(scope="module")
def strides(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A propagator with tables in double precision, in both containers."""
    folder = tmp_path_factory.mktemp("strides")
    paths = {"torchscript": folder / "p.pt", "aoti": folder / "p.pt2"}
    for container, path in paths.items():
        save_propagator(propagator(), path, dtype="float64", tables=1e-6, container=container)  # type: ignore[arg-type]
    return paths


def wide(count: int) -> Frame:
    """An open cluster with no bond below 0.5 A, where the tables start."""
    frame = cluster(count)
    return frame._replace(positions=1.5 * frame.positions)


@compiler
@pytest.mark.slow
def test_strides_are_torchscripts(strides: dict[str, Path]) -> None:
    """In a cell, open (where angular momentum is kept), of two atoms and of one."""
    scripted, compiled = load(strides["torchscript"]), load(strides["aoti"], trust_compiled=True)
    pair = wide(2)
    for frame in (crystal(), wide(14), pair, Frame(*(part[:1] for part in pair[:3]), *pair[3:])):
        arguments = (frame.positions, frame.velocities, frame.species, frame.cell, bool(frame.cell.any()))
        for one, other in zip(scripted.propagate(*arguments), compiled.propagate(*arguments), strict=True):
            assert torch.allclose(one, other, rtol=0, atol=1e-11)
    fast, close = wide(14), wide(14)
    fast.velocities[3, 1] = 1.0
    close.positions[5] = close.positions[4] + torch.tensor([0.203, 0.0, 0.0])
    for frame, sentence in ((fast, "atom 3 moves at 1000"), (close, "atoms 4 and 5 are 20 pm apart")):
        found = []
        for model in (scripted, compiled):
            with pytest.raises(EquistrideError, match=sentence) as info:
                model.propagate(frame.positions, frame.velocities, frame.species)
            found.append(str(info.value))
        assert found[0] == found[1]


@compiler
@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "plain"])
def test_single_precision(tmp_path: Path, fused: bool) -> None:
    """Sums in another order: a few units in the last place (6e-8) of terms that are up to thirty times their sum."""
    source = checkpoint(tmp_path, SIZES)
    paths = {"torchscript": tmp_path / "toy.pt", "aoti": tmp_path / "toy.pt2"}
    for container, path in paths.items():
        export(source, path, dtype="float32", fused=fused, container=container)  # type: ignore[arg-type]
    for atoms in structures().values():
        compare(paths, atoms, 2e-6)


@compiler
@pytest.mark.slow
def test_an_equiformer_compiles(tmp_path: Path) -> None:
    paths = {"torchscript": tmp_path / "e.pt", "aoti": tmp_path / "e.pt2"}
    potential = equiformer()
    config = EquiformerConfig(num_layers=2, cutoff=CUTOFF, smooth=True)
    for container, path in paths.items():
        save_potential(potential, config, path, dtype="float64", fused=True, provenance={}, container=container)  # type: ignore[arg-type]
    for atoms in structures().values():
        compare(paths, atoms, 1e-10)


@compiler
@pytest.mark.slow
def test_the_command_says_what_it_made(tmp_path: Path) -> None:
    source = checkpoint(tmp_path, TINY)
    command = [sys.executable, "-m", "equistride.cli.main", "export", source, "--container"]
    done = subprocess.run(
        [*command, "aoti", "-o", tmp_path / "toy.pt2"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "compiled for torch 2." in done.stdout
    bad = subprocess.run(
        [*command, "zip", "-o", tmp_path / "no.pt2"], capture_output=True, text=True, timeout=60, check=False
    )
    assert bad.returncode == 2
    assert "expected torchscript or aoti" in bad.stderr


@compiler
def test_a_compiled_file_needs_the_users_word(pair: dict[str, Path], tmp_path: Path) -> None:
    """In another process, which has not made it: by no way in without the word, and XML does not bring it."""
    program = f"""
import os, sys, openmm
from equistride.artifact import load
from equistride.engines.ase import EquistrideCalculator
from equistride.engines.openmm import create_system
from equistride.engines.openmm_force import Force
from equistride.engines.openmm_structure import topology_from_ase
from equistride.data.quartz import quartz

path, xml = {str(pair["aoti"])!r}, {str(tmp_path / "system.xml")!r}
topology, _ = topology_from_ase(quartz((2, 2, 2)))
read = lambda: openmm.XmlSerializer.deserialize(open(xml).read())
ways = [lambda: load(path), lambda: load(path, verify=False), lambda: load(open(path, "rb").read()),
        lambda: EquistrideCalculator(path), lambda: create_system(path, topology), lambda: Force(path)]
if os.path.exists(xml):
    ways.append(read)
for way in ways:
    try:
        way()
    except Exception as error:
        assert "is compiled: machine code" in str(error) and "trust_compiled=True" in str(error), error
    else:
        sys.exit("a compiled file was loaded without the word")
system = create_system(path, topology, trust_compiled=True)
if os.path.exists(xml):
    read()
open(xml, "w").write(openmm.XmlSerializer.serialize(system))
read()  # these bytes are trusted now, and until the process ends
"""
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for word, status in (([], 2), (["--trust"], 0)):
        command = [sys.executable, "-m", "equistride.cli.main", "inspect", str(pair["aoti"]), *word]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert ("is compiled: machine code" in done.stderr) == (status == 2)
    program = f"from equistride.artifact import load; load({str(pair['aoti'])!r})"
    environment = os.environ | {"EQUISTRIDE_TRUST_COMPILED": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
