"""What a fairchem checkpoint's configuration says is used, known to be without effect, or refused with the true reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fairchem_files import FOLDER, ROUTED, changed, energy_task, written
from typer.testing import CliRunner

from equistride.cli.main import app
from equistride.errors import EquistrideError
from equistride.importers.fairchem import build, import_fairchem, potential_of
from equistride.importers.fairchem_checkpoint import Normalisation, read_checkpoint
from equistride.importers.fairchem_config import (
    MODEL_USED,
    MODEL_WITHOUT_EFFECT,
    USED,
    WITHOUT_EFFECT,
    cap_of,
    config_of,
)
from equistride.importers.fairchem_heads import OPTIONS, WRAPPER_OPTIONS
from equistride.nn.nearest import nearest

BACKBONE = read_checkpoint(FOLDER / "L2M2_spectral.pt").backbone


def test_the_document_has_every_key(repository: Path) -> None:
    text = (repository / "docs" / "inputs.md").read_text()
    section = text[text.index("## fairchem") :]
    section = section[: section.find("\n## ", 3)] if "\n## " in section[3:] else section
    keys = USED | set(WITHOUT_EFFECT) | MODEL_USED | set(MODEL_WITHOUT_EFFECT) | OPTIONS | WRAPPER_OPTIONS
    assert not [key for key in keys if f"`{key}`" not in section]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"backbone": BACKBONE | {"norm_stats_num_channels": 3}}, r"meaning is not known, backbone\.norm_stats_num_channels"),
        ({"new_section": {}}, r"meaning is not known, model\.new_section"),
        ({"heads": {"efs": {"scale": 2.0}}}, r"meaning is not known, heads\.efs\.scale"),
        ({"heads": {"efs": {"module": "a.b.MLP_EFS_Head", "reduce": "mean"}}}, "divides the energy by the number of atoms"),
        ({"heads": {"efs": ROUTED | {"head_kwargs": {"reduce": "mean"}}}}, "divides the energy by the number of atoms"),
        ({"heads": {"efs": {"module": "a.b.Linear_Energy_Head"}}}, "head efs is of a kind.*found Linear_Energy_Head"),
        ({"backbone": BACKBONE | {"model": "AllScAIP_backbone"}}, "another architecture; expected eSEN or UMA; found AllScAIP"),
        ({"backbone": BACKBONE | {"model": "fairchem.core.models.escaip.EScAIP.EScAIPBackbone"}}, "found fairchem.*EScAIP"),
        ({"backbone": BACKBONE | {"cutoff": "${cutoff_radius}"}}, r"value of backbone\.cutoff but refers to it.*OmegaConf"),
        ({"backbone": None}, "no section backbone; expected backbone and heads"),
        ({"backbone": BACKBONE | {"charge_balanced_channels": [0, 2]}}, "charge-balanced channels have gaps"),
        ({"backbone": BACKBONE | {"charge_balanced_channels": [7, 8]}}, "charge_channels must be a first and a last one of 8"),
    ],
)  # fmt: skip
def test_configurations_that_are_refused(given: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(EquistrideError, match=sentence) as info:
        potential_of(read_checkpoint(written(tmp_path / "model.pt", model=given)))
    assert "\n" not in str(info.value)


def test_keys_without_effect_are_let_through(tmp_path: Path) -> None:
    harmless = {key: 1 for key in WITHOUT_EFFECT}
    around = {key: 1 for key in MODEL_WITHOUT_EFFECT if key != "name"} | {"name": "hydra"}
    path = written(tmp_path / "model.pt", model={"backbone": BACKBONE | harmless} | around)
    assert config_of(read_checkpoint(path).backbone) == config_of(BACKBONE)


REFERENCES = "fairchem.core.modules.normalization.element_references"


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"_target_": f"{REFERENCES}.create_element_references", "file": "refs.pt"}, "reference energies.*found file: refs.pt"),
        ({"element_references": {"_target_": "torch.DoubleTensor", "_args_": ["${refs.omat}"]}}, r"refers to it.*refs\.omat"),
        ({"element_references": {"_target_": "numpy.array", "_args_": [[1.0]]}}, "does not hold the elements' reference"),
        ("${refs}", "refers to it"),
    ],
)  # fmt: skip
def test_references_that_are_not_in_the_file_are_refused(facts: Any, sentence: str, tmp_path: Path) -> None:
    path = written(tmp_path / "model.pt", tasks=[energy_task(element_references=facts)])
    with pytest.raises(EquistrideError, match=sentence):
        read_checkpoint(path)


def test_references_are_rounded_as_their_tensor_says(tmp_path: Path) -> None:
    for kind, value in (("DoubleTensor", -0.1), ("FloatTensor", float(np.float32(-0.1)))):
        facts = {"element_references": {"_target_": f"torch.{kind}", "_args_": [[-0.1] * 20]}}
        path = written(tmp_path / "model.pt", tasks=[energy_task(element_references=facts)])
        assert set(read_checkpoint(path).datasets["omat"].references) == {value}


@pytest.mark.parametrize("normaliser", ["${rmsd}", {"file": "norm.pt"}, {"mean": 0.0, "rmsd": "${rmsd}"}])
def test_normalisers_that_are_not_in_the_file_are_refused(normaliser: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "model.pt", tasks=[energy_task(normalizer=normaliser)])
    with pytest.raises(EquistrideError, match=r"refers to it|does not hold the normaliser"):
        read_checkpoint(path)


def test_wrappers_in_front_of_the_names_of_weights_are_taken_off(tmp_path: Path) -> None:
    plain = read_checkpoint(FOLDER / "L2M2_spectral.pt").state
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.module.", "_orig_mod.module."):
        path = written(tmp_path / "model.pt", state={prefix + key: value for key, value in plain.items()})
        assert set(read_checkpoint(path).state) == set(plain)


def test_the_old_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"model_config": {}}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(
        EquistrideError, match=r"old format of torch\.save; expected a zip archive; .*weights_only=False"
    ):
        read_checkpoint(path)


def test_a_mapped_dataset_takes_the_row_that_it_is_mapped_to() -> None:
    checkpoint = changed(
        "L2M2_omol", dataset_list=None, dataset_mapping={"omat": "omat", "omol": "omol", "spice": "omol"}
    )
    rows = {name: f"backbone.dataset_embedding.dataset_emb_dict.{name}.weight" for name in ("omol", "spice")}
    checkpoint.state[rows["spice"]] = checkpoint.state[rows["omol"]] + 1  # made by fairchem, and never read
    checkpoint.datasets["spice"] = checkpoint.datasets["omol"]
    bias = {d: build(checkpoint, dataset=d).potential.network.system.mix.bias for d in ("omol", "spice")}
    assert torch.equal(bias["omol"], bias["spice"])
    checkpoint.backbone["dataset_mapping"].pop("spice")
    with pytest.raises(EquistrideError, match="backbone does not know the dataset; expected omat, omol; found spice"):
        build(checkpoint, dataset="spice")


def test_a_head_with_a_slice_a_dataset() -> None:
    """Slices are numbered by the sorted names of heads, not by those of datasets."""
    checkpoint = changed(
        "L2M2_omol", dataset_list=None, dataset_mapping={"omat": "omat", "omol": "omol", "a_sub": "omol"}
    )
    plain = build(checkpoint).potential.state_dict()
    checkpoint.heads = {"efs": ROUTED | {"dataset_mapping": {"a_sub": "omol", "omat": "omat", "omol": "omol"}}}
    state = checkpoint.state
    for key in [k for k in state if "energy_block" in k and k.endswith("weight")]:
        right = state.pop(key)
        state[f"{key}s"] = torch.stack([right + 1, right, right + 2])  # omat, omol, unused
    checkpoint.datasets |= {"a_sub": checkpoint.datasets["omol"], "omat": Normalisation()}
    for dataset, equal in (("omol", True), ("a_sub", True), ("omat", False)):
        found = build(checkpoint, dataset=dataset, unmerged=True).potential.state_dict()
        assert torch.equal(found["network.head.0.weight"], plain["network.head.0.weight"]) == equal


def test_of_several_heads_that_of_the_dataset_is_taken() -> None:
    checkpoint = changed("L2M2_direct")
    state = checkpoint.state
    for key in [k for k in state if k.startswith("output_heads.energy.")]:
        state[key.replace(".energy.", ".second.")] = 2 * state[key]
    for name, prefix in (("energy", "omol"), ("second", "omat")):
        checkpoint.heads[name] = {"module": "MLP_Energy_Head", "prefix": prefix}
    first = build(changed("L2M2_direct")).potential.network.head[0].weight
    assert torch.equal(build(checkpoint).potential.network.head[0].weight, 2 * first)
    checkpoint.heads["second"].pop("prefix")
    with pytest.raises(EquistrideError, match=r"no single output head.*found output_heads\.energy.*second"):
        build(checkpoint)


def test_stresses_that_are_no_strain_derivative_are_told(tmp_path: Path) -> None:
    def notes(checkpoint: Any) -> str:
        return "; ".join(build(checkpoint).notes)

    checkpoint = changed("L2M2_spectral")
    assert "stress" not in notes(checkpoint)
    checkpoint.datasets["omat"].stress_rmsd = 1.0
    assert "scales stresses by 1 and energies by 1.423" in notes(checkpoint)
    assert "head for stresses is left out" in notes(changed("L2M2_spectral", direct_stress=True))
    task = {"property": "stress", "datasets": ["omat"], "normalizer": {"mean": 0.2, "rmsd": 1.5}}
    path = written(tmp_path / "mean.pt", tasks=[energy_task(), task])
    assert "scales stresses by nan" in notes(read_checkpoint(path))
    arguments = ["import", "fairchem", str(path), "-o", str(tmp_path / "out.pt"), "--elements", "O,Si"]
    assert "note: fairchem scales stresses by nan" in CliRunner().invoke(app, arguments).output


def test_a_cap_that_bites_in_a_solid_is_kept() -> None:
    """Diamond has 158 neighbours within 6 A; nothing has 300 there, and everything has 300 within 12 A."""
    for cap, cutoff, kept in ((120, 6.0, 120), (300, 6.0, None), (300, 12.0, 300), (20, 12.0, 20), (-1, 6.0, None)):
        config = config_of(BACKBONE | {"max_neighbors": cap, "cutoff": cutoff})
        assert config.max_neighbors == kept
        assert config.neighbor_slack == (0.01 if kept else None)
        assert bool(config.caveats) == bool(kept)
    silent = {key: value for key, value in BACKBONE.items() if key != "max_neighbors"} | {"cutoff": 12.0}
    assert config_of(silent).max_neighbors == 300  # fairchem's default
    assert "nearest 300 neighbours, this file over all: the same up to 0.33" in cap_of({"cutoff": 6.0})[1]


def test_a_cap_with_slack_is_that_of_fairchem() -> None:
    """All edges with d^2 <= d^2 of the first beyond the cap + 0.01 A^2, the first beyond it always."""
    generator = np.random.default_rng(1)
    receiver = np.sort(generator.integers(0, 6, 80))
    distances = 3 + 0.02 * generator.integers(0, 40, 80)  # many are equal, or 0.01 A^2 apart
    keep = nearest(torch.tensor(distances), torch.tensor(receiver), 7, 5, 0.01).tolist()
    for atom in range(7):
        mine = np.flatnonzero(receiver == atom)
        squares = distances[mine] ** 2
        limit = np.sort(squares)[5] + 0.01 if len(mine) > 5 else np.inf
        assert [k for k in keep if receiver[k] == atom] == mine[squares <= limit].tolist()
    assert len(keep) > 6 * 6  # slack kept more than one beyond the cap
    assert nearest(torch.zeros(0), torch.zeros(0, dtype=torch.int64), 3, 2, 0.01).tolist() == []


def test_networks_that_may_be_merged_by_hand_need_a_word(tmp_path: Path) -> None:
    checkpoint = changed("L2M2_omol")
    checkpoint.datasets["omat"] = checkpoint.datasets["omol"]
    with pytest.raises(EquistrideError, match=r"may be a UMA model.*--structure FILE .*--unmerged"):
        build(checkpoint, dataset="omol")
    free = build(checkpoint, dataset="omol", unmerged=True)
    assert free.config.charge_spin == "positional"
    bound = build(checkpoint, dataset="omol", composition={"C": 2, "H": 6, "O": 1})
    assert bound.composition is not None
    assert (bound.config.charge_spin, bound.composition.elements["H"]) == ("off", 6)
    checkpoint = changed("L2M2_spectral")
    checkpoint.name = "UMA-S-1.1"
    with pytest.raises(EquistrideError, match="may be a UMA model"):
        build(checkpoint)


def test_a_structure_for_a_model_of_any_composition_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EquistrideError, match=r"holds for any composition.*--elements"):
        import_fairchem(FOLDER / "L2M2_spectral.pt", tmp_path / "out.pt", composition={"Si": 1})
