"""Charge and spin of frames in training: learnt frame by frame, refused where no frame has them, told where they are not taken;
and losses without labels.
"""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from equistride.artifact import load
from equistride.artifact.checkpoint import load_weights, read_checkpoint
from equistride.artifact.export import build_potential, export, model_config
from equistride.data.frames import load as load_frames
from equistride.errors import EquistrideError, Notice
from equistride.training.config import load_config
from equistride.training.data import GraphDataset, collate
from equistride.training.module import predict
from equistride.training.run import train
from equistride.training.systems import check_systems
from equistride.training.task import potential_task

SMALL = {
    "cutoff": 4.0,
    "num_layers": 1,
    "l_max": 1,
    "m_max": 1,
    "channels": 4,
    "hidden_channels": 4,
    "edge_channels": 4,
}


def charged(path: Path, count: int = 8, **labels: bool) -> Path:
    """Write frames of four atoms whose energy depends on their charge, neutral singlets and doublet cations."""
    rng = np.random.default_rng(3)
    made = []
    for k in range(count):
        atoms = Atoms(
            "Si4", rng.normal(size=(4, 3)) * 0.1 + 2.3 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        )
        atoms.set_cell([12.0] * 3)
        atoms.pbc = True
        found = {"energy": -4.0 + 5.0 * (k % 2) + 0.01 * k, "forces": rng.normal(size=(4, 3))}
        if labels.get("stress"):
            found["stress"] = rng.normal(size=6) * 1e-3
        atoms.calc = SinglePointCalculator(atoms, **found)
        if labels.get("charge", True):
            atoms.info |= {"charge": k % 2, "spin": 1 + k % 2}
        made.append(atoms)
    ase.io.write(path, made, format="extxyz")
    return path


def config(folder: Path, name: str, **changes: object) -> Path:
    tree = {
        "name": "toy", "model": SMALL | changes.pop("model", {}), "data": {"files": [name], "batch_size": 2},
        "loss": {"energy": 1.0, "force": 1.0}, "trainer": {"steps": 4, "validate_every": 2, "precision": "float64"}, **changes,
    }  # fmt: skip
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.parametrize("kind", ["positional", "linear", "table"])
def test_each_frame_of_a_batch_has_its_own(tmp_path: Path, kind: str) -> None:
    """Energies and forces of a batch are those of its frames, one by one, under the charge and spin of each."""
    torch.manual_seed(0)
    (frames,) = load_frames(charged(tmp_path / "a.extxyz"))
    facts = {"species": ["Si"], "scale": 1.3, "references": [0.5]}
    potential = build_potential(model_config(SMALL | {"architecture": "esen", "charge_spin": kind}), facts).double()
    dataset = GraphDataset([frames], ["Si"], 4.0, torch.float64)
    energies, forces, _ = predict(potential, collate([dataset[0], dataset[1], dataset[2]]), False)
    network = potential.network
    for k in range(3):
        network.set_system(float(k % 2), float(1 + k % 2))
        bare = dataset[k]
        plain = potential(
            torch.from_numpy(frames.positions[k]), bare.species, torch.from_numpy(frames.cell[k]), bare.edge_index.long(),
            torch.zeros(bare.edge_index.size(1), 3, dtype=torch.int32),
        )  # fmt: skip
        assert float(energies[k].detach()) == pytest.approx(float(plain[0].sum()), abs=1e-12)
        torch.testing.assert_close(forces[4 * k : 4 * k + 4].detach(), plain[1], atol=1e-12, rtol=0)
    assert network.system.charge.shape == (1,), "as it was before the batch"
    assert abs(float((energies[0] - energies[1]).detach())) > 1e-6


@pytest.mark.parametrize("forces", ["gradient", "direct"])
def test_charges_are_learnt_and_served(tmp_path: Path, forces: str) -> None:
    charged(tmp_path / "a.extxyz", 12)
    model = {"charge_spin": "positional", "forces": forces}
    settings = load_config(
        config(tmp_path, "a.extxyz", model=model), ["trainer.steps=60", "optimiser.learning_rate=2e-2"]
    )
    train(settings, tmp_path, tmp_path / "run", progress=False)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = read_checkpoint(checkpoint)
    if forces == "gradient":
        weights = content["state_dict"]["model.network.system.mix.weight"]
        fresh = potential_task(settings, tmp_path).module.model.network.system.mix.weight
        assert not torch.equal(weights.to(fresh), fresh)
    metadata = export(checkpoint, tmp_path / "a.pt", dtype="float64", allow_nonconservative=True)
    assert metadata.charge_spin == "input"
    assert metadata.system in ({"charge": 0.0, "spin": 1.0}, {"charge": 1.0, "spin": 2.0})
    (frames,) = load_frames(tmp_path / "a.extxyz")
    energies = [
        float(load(tmp_path / "a.pt", charge=q, spin=q + 1).compute(frames.positions[0], [0] * 4, frames.cell[0], [True] * 3)
              .atomic_energies.sum()) for q in (0, 1)
    ]  # fmt: skip
    assert abs(energies[0] - energies[1]) > 1e-3
    facts = content["equistride"]
    potential = build_potential(model_config(facts["config"]["model"]), facts).double()
    load_weights(potential, content, checkpoint)
    batch = collate([GraphDataset([frames], ["Si"], 4.0, torch.float64)[k] for k in (0, 1)])
    assert float(predict(potential, batch, False)[0][0].detach()) == pytest.approx(energies[0], abs=1e-9)


def test_charge_and_spin_that_no_frame_has(tmp_path: Path) -> None:
    charged(tmp_path / "a.extxyz", charge=False)
    settings = load_config(config(tmp_path, "a.extxyz", model={"charge_spin": "linear"}))
    with pytest.raises(EquistrideError, match="charge_spin is on and no frame has a charge or a spin"):
        potential_task(settings, tmp_path)


def test_charges_that_the_model_does_not_take_are_told(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    charged(tmp_path / "a.extxyz")
    with pytest.warns(Notice) as said:
        potential_task(load_config(config(tmp_path, "a.extxyz")), tmp_path)
    sentences = " ".join(str(w.message) for w in said)
    assert "have charges of 0, 1, which the model does not take (model.charge_spin: off)" in sentences
    assert "have spin multiplicities of 1, 2, which" in sentences
    (frames,) = load_frames(charged(tmp_path / "b.extxyz"))
    before = len(recwarn)
    check_systems([frames[frames.charge == 0]], taken=False)  # neutral singlets say nothing
    assert len(recwarn) == before


def test_frames_that_lack_a_charge_are_counted(tmp_path: Path) -> None:
    (frames,) = load_frames(charged(tmp_path / "a.extxyz"))
    assert frames.charge is not None
    frames.charge[2:4] = np.nan
    with pytest.warns(Notice, match="2 of 8 frames have no charge; to the model they are neutral"):
        check_systems([frames], taken=True)
    frames.charge[:], frames.spin[:] = 0, 1
    with pytest.warns(Notice, match="all frames have a charge of 0: what another one does is not learnt"):
        check_systems([frames], taken=True)
    frames.charge[0] = 101
    with pytest.raises(
        EquistrideError, match="charge of the frames is out of range; expected -100 to 100; found 0 to 101"
    ):
        check_systems([frames], taken=True)


def test_a_loss_without_labels_is_refused(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    """Where it was asked for; the default weight of the virials is for those who have them."""
    charged(tmp_path / "a.extxyz", charge=False)
    asked = load_config(config(tmp_path, "a.extxyz"), ["loss.virial=1"])
    with pytest.raises(EquistrideError, match=r"loss\.virial is above 0 and no frame has a stress or a virial"):
        potential_task(asked, tmp_path)
    potential_task(load_config(config(tmp_path, "a.extxyz"), ["loss.virial=0"]), tmp_path)
    potential_task(load_config(config(tmp_path, "a.extxyz")), tmp_path)
    assert not [w for w in recwarn if "virial" in str(w.message)]
    charged(tmp_path / "b.extxyz", charge=False, stress=True)
    both = load_config(config(tmp_path, "a.extxyz"), ["loss.virial=1", "data.files=[a.extxyz, b.extxyz]"])
    with pytest.warns(Notice, match=r"\d of 14 frames have a virial; loss.virial is of these alone"):
        potential_task(both, tmp_path)


def test_stresses_in_kbar_do_not_reach_the_network(tmp_path: Path) -> None:
    charged(tmp_path / "a.extxyz", charge=False, stress=True)
    images = ase.io.read(tmp_path / "a.extxyz", ":")
    for image in images:
        image.calc.results["stress"] = image.calc.results["stress"] * 1602.18
    ase.io.write(tmp_path / "kbar.extxyz", images)
    potential_task(load_config(config(tmp_path, "a.extxyz"), ["loss.virial=1"]), tmp_path)
    with pytest.raises(EquistrideError, match=r"stresses or virials of .*kbar\.extxyz cannot be in eV/A\^3"):
        potential_task(load_config(config(tmp_path, "kbar.extxyz"), ["loss.virial=1"]), tmp_path)
    potential_task(load_config(config(tmp_path, "kbar.extxyz"), ["loss.virial=0"]), tmp_path)


def test_isolated_atoms_are_learnt_from(tmp_path: Path) -> None:
    charged(tmp_path / "a.extxyz", charge=False)
    with (tmp_path / "a.extxyz").open("a") as file:
        file.write("1\nProperties=species:S:1:pos:R:3 energy=-0.4\nSi 0 0 0\n")
    results = train(load_config(config(tmp_path, "a.extxyz")), tmp_path, tmp_path / "run", progress=False)
    assert all(np.isfinite(list(results.values())))
