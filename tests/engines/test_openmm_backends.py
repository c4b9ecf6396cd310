"""Which way into OpenMM is taken, and when openmm-torch is trusted."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from openmm_systems import Structure, context, energy_forces

from equistride.engines import openmm as engine
from equistride.engines import openmm_torch
from equistride.errors import EquistrideError


class Wheel:
    """What importlib.metadata tells of a distribution."""

    def __init__(self, version: str, requires: list[str]) -> None:
        self.version, self.requires = version, requires


def install(monkeypatch: pytest.MonkeyPatch, wheel: Wheel | None, prefix: Path) -> None:
    """Make it look as if openmm-torch were installed."""

    def distribution(name: str) -> Wheel:
        if wheel is None or name != "openmmtorch":
            raise importlib.metadata.PackageNotFoundError(name)
        return wheel

    monkeypatch.setattr(openmm_torch.importlib.metadata, "distribution", distribution)
    monkeypatch.setattr(openmm_torch.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(openmm_torch.importlib, "import_module", lambda name: object())
    monkeypatch.setattr(openmm_torch.sys, "prefix", str(prefix))


@pytest.mark.parametrize(
    ("version", "requires", "minor"),
    [
        ("1.5", ["openmm", "torch"], "2.9"),  # the wheel on PyPI, which pins nothing
        ("1.6", ["openmm", "torch==2.10.*"], "2.10"),
        ("1.6", ["openmm", "torch>=2.11,<2.12"], "2.11"),
        ("1.6", ["torch~=2.12.0"], "2.12"),
        ("1.6", ["openmm", "torch>=2.9"], None),
        ("1.6", ["torchvision==2.10.*"], None),
        ("9.9", ["openmm"], None),
    ],
)
def test_the_torch_that_a_wheel_was_built_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, requires: list[str], minor: str | None
) -> None:
    install(monkeypatch, Wheel(version, requires), tmp_path)
    assert openmm_torch.built_for() == minor


def test_a_conda_package_pins_its_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    record = {"depends": ["python", "openmm >=8.4", "libtorch >=2.8.0,<2.9.0a0", "pytorch * cpu_*"]}
    (tmp_path / "conda-meta" / "openmm-torch-1.5.1-py311.json").write_text(json.dumps(record))
    install(monkeypatch, Wheel("1.5", []), tmp_path)
    assert openmm_torch.built_for() == "2.8"


def test_only_the_right_torch_is_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    running = ".".join(torch.__version__.split(".")[:2])
    install(monkeypatch, Wheel("1.5", ["torch==2.1.*"]), tmp_path)
    assert "built for torch 2.1" in str(openmm_torch.why_not())
    with pytest.raises(EquistrideError, match=r"built for torch 2\.1"):
        engine.choose_backend("openmm-torch")
    assert engine.choose_backend("auto") == "plugin"
    install(monkeypatch, Wheel("1.7", []), tmp_path)
    assert "does not record" in str(openmm_torch.why_not())
    install(monkeypatch, Wheel("1.7", [f"torch=={running}.*"]), tmp_path)
    assert openmm_torch.usable()
    assert engine.choose_backend("openmm-torch") == "openmm-torch"
    assert engine.choose_backend("auto") == "plugin", "ten times faster, and it can do more"

    def broken(name: str) -> None:
        raise OSError("libtorch_cuda.so: cannot open shared object file")

    monkeypatch.setattr(openmm_torch.importlib, "import_module", broken)
    assert "does not import (libtorch_cuda" in str(openmm_torch.why_not())


def test_without_the_plugin_python_serves(
    monkeypatch: pytest.MonkeyPatch, artifact64: Path, molecule: Structure
) -> None:
    expected = energy_forces(context(engine.create_system(artifact64, molecule.topology), molecule.positions))
    monkeypatch.setattr(engine, "_plugin_built", lambda: False)
    assert engine.choose_backend() == "python"
    with pytest.raises(EquistrideError, match="plugin was not built"):
        engine.create_force(artifact64, molecule.topology, backend="plugin")
    system = engine.create_system(artifact64, molecule.topology)
    assert energy_forces(context(system, molecule.positions))[0] == pytest.approx(expected[0], rel=1e-12)


def test_openmm_ml(artifact64: Path, crystal: Structure, tmp_path: Path) -> None:
    from openmmml import MLPotential

    from equistride.engines.openmm_ml import EquistrideFactory

    MLPotential.registerImplFactory("equistride", EquistrideFactory())
    with pytest.raises(EquistrideError, match="modelPath"):
        MLPotential("equistride")
    for path in (artifact64.read_bytes(), [str(artifact64)]):
        with pytest.raises(EquistrideError, match=r"given by its file; expected a path; found (bytes|list)"):
            MLPotential("equistride", modelPath=path)
    with pytest.raises(EquistrideError, match="does not exist; check modelPath"):
        MLPotential("equistride", modelPath=str(tmp_path / "none.pt"))
    (tmp_path / "notes.pt").write_text("none")
    with pytest.raises(EquistrideError, match=r"is no potential of equistride; .*found another file"):
        MLPotential("equistride", modelPath=tmp_path / "notes.pt")
    with pytest.raises(EquistrideError, match="argument presicion of an equistride potential is not known"):
        MLPotential("equistride", modelPath=str(artifact64), presicion="double")
    with pytest.raises(EquistrideError, match=r"two names of one number.*'spin': 1, 'multiplicity': 2"):
        MLPotential("equistride", modelPath=str(artifact64), multiplicity=2, spin=1)
    for key in ("linkAtomDistances", "mlLongRange"):
        with pytest.raises(EquistrideError, match=f"argument {key} of .* is not known but to createMixedSystem"):
            MLPotential("equistride", modelPath=str(artifact64)).createSystem(crystal.topology, **{key: []})
    system = MLPotential("equistride", modelPath=str(artifact64)).createSystem(crystal.topology, backend="plugin")
    expected = energy_forces(context(engine.create_system(artifact64, crystal.topology), crystal.positions))
    found = energy_forces(context(system, crystal.positions))
    assert found[0] == pytest.approx(expected[0], rel=1e-12)


def test_options_of_openmm_ml_reach_the_force(artifact64: Path, crystal: Structure) -> None:
    """Given to the potential, or to the call that makes a System, which goes before."""
    from openmmml import MLPotential

    from equistride.engines.openmm_ml import EquistrideFactory

    MLPotential.registerImplFactory("equistride", EquistrideFactory())
    potential = MLPotential(
        "equistride", modelPath=str(artifact64), precision="float32", device="cpu", backend="plugin"
    )
    for given, precision in (({}, "single"), ({"precision": "float64"}, "double")):
        system = potential.createSystem(crystal.topology, **given)
        force = engine.Force.cast(system.getForces()[0])
        assert (force.getProperties()["precision"], force.getProperties()["device"]) == (precision, "cpu")
    with pytest.raises(EquistrideError, match="knows no charge and no spin"):
        potential.createSystem(crystal.topology, charge=-1)
    with pytest.raises(EquistrideError, match="argument temperature of an equistride potential is not known"):
        potential.createSystem(crystal.topology, temperature=300)


def test_the_factory_of_openmm_ml_is_light() -> None:
    program = "import sys, openmmml, equistride.engines.openmm_ml; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=300).returncode == 0


def test_openmm_torch_gets_a_file_of_its_contract(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, artifact64: Path, crystal: Structure
) -> None:
    # Our plugin obeys TorchForce's contract, so it can play the part of openmm-torch here; benchmarks/
    # verify_openmm_torch.py runs the same files in the genuine one.
    running = ".".join(torch.__version__.split(".")[:2])
    force_class = engine.Force
    expected = energy_forces(context(engine.create_system(artifact64, crystal.topology), crystal.positions))
    install(monkeypatch, Wheel("1.7", [f"torch=={running}.*"]), tmp_path)
    monkeypatch.setattr(openmm_torch.importlib, "import_module", lambda name: SimpleNamespace(TorchForce=force_class))
    with pytest.warns(UserWarning, match="about ten times slower than backend='plugin'"):
        system = engine.create_system(artifact64, crystal.topology, force_group=2, backend="openmm-torch")
    with pytest.raises(EquistrideError, match="expected neither device, charge nor spin"):
        engine.create_force(artifact64, crystal.topology, backend="openmm-torch", device="cpu")
    ours = [force_class.cast(f) for f in system.getForces() if force_class.isinstance(f)]
    assert not ours[0].isArtifact()
    assert ours[0].getOutputsForces()
    assert ours[0].getForceGroup() == 2
    found = energy_forces(context(system, crystal.positions))
    assert found[0] == pytest.approx(expected[0], rel=1e-9)
