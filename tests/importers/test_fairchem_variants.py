"""Checkpoints that fairchem-core 2.24.0 wrote in unusual forms: each equals fairchem, or is refused with the true reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.data import chemical_symbols

from equistride.artifact import load
from equistride.errors import EquistrideError
from equistride.importers.fairchem import import_fairchem

EQUAL: dict[str, dict[str, Any]] = {
    "03_moe0_moeheadwrapper": {"unmerged": True},
    "04_dataset_mapping_alias": {"unmerged": True},
    "07_direct_nbr30": {"allow_nonconservative": True},
    "22_stress_rmsd_differs": {},
    "23_charge_balanced": {},
}
"""What must be said to import them."""
REFUSED = {
    "03_moe0_moeheadwrapper": "may be a UMA model whose experts were merged.*--unmerged",
    "05_head_reduce_mean": "divides the energy by the number of atoms.*expected reduce: sum; found reduce: mean",
    "07_direct_nbr30": "direct forces.*neighbour cap of 30.*--allow-nonconservative",
    "18_refs_interpolation": r"energy\.element_references.*but refers to it.*found \$\{element_refs\.omat_elem_refs\}",
    "31_legacy_torch_save": r"saved in the old format of torch\.save",
}


@pytest.fixture(scope="module")
def variants(shared_data: Path) -> Path:
    folder = shared_data / "esen-variants"
    if not folder.is_dir():
        pytest.skip(f"no variants of fairchem's checkpoints in {folder}")
    return folder


def test_every_variant_is_decided_on(variants: Path) -> None:
    assert {path.stem for path in variants.glob("*.pt")} == set(EQUAL) | set(REFUSED)


@pytest.mark.parametrize("name", EQUAL)
def test_it_equals_fairchem(variants: Path, tmp_path: Path, name: str) -> None:
    """1e-10 in float64, of the interaction energy's order of 10 eV and of the rms force."""
    expected = np.load(variants / f"{name}.npz")
    numbers, forces = expected["numbers"], expected["forces"]
    metadata = import_fairchem(
        variants / f"{name}.pt", tmp_path / "out.pt", dtype="float64", dataset=str(expected["dataset"]),
        elements=[chemical_symbols[z] for z in set(numbers)], charge=int(expected["charge"]), spin=int(expected["spin"]),
        **EQUAL[name],
    )  # fmt: skip
    model = load(tmp_path / "out.pt")
    out = model.compute(
        expected["positions"], [chemical_symbols[z] for z in numbers], expected["cell"], expected["pbc"]
    )
    assert abs(float(out.atomic_energies.sum()) - float(expected["energy"])) < 1e-10 * 10
    assert np.abs(out.forces.numpy() - forces).max() < 1e-10 * np.sqrt(np.mean(forces**2))
    if "stress" in expected and expected["pbc"].all():
        stress = -out.virial.numpy() / abs(np.linalg.det(expected["cell"]))
        wanted = expected["stress"].reshape(3, 3)
        told = any("scales stresses by 1 " in note for note in metadata.weights.get("notes", []))
        assert told == (name == "22_stress_rmsd_differs")
        assert (np.abs(stress - wanted).max() < 1e-10 * np.abs(wanted).max()) != told


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_true_reason(variants: Path, tmp_path: Path, name: str) -> None:
    dataset = str(np.load(variants / f"{name}.npz")["dataset"])
    with pytest.raises(EquistrideError, match=REFUSED[name]):
        import_fairchem(variants / f"{name}.pt", tmp_path / "out.pt", dataset=dataset)
    assert not (tmp_path / "out.pt").exists()
