"""Good inputs of every kind that equistride reads, and how benchmarks/faults.py damages them."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import ase.io
import h5py
import numpy as np
import torch
from openmm import app
from torch import Tensor, nn

from equistride.artifact.archive import save
from equistride.artifact.checkpoint import checkpoint_bytes
from equistride.artifact.metadata import Metadata
from equistride.data.frames import Frames

Rng = np.random.Generator
SYMBOLS = ["Ar", "Kr", "Ar", "Ar", "Kr", "Ar"]
ODD = [
    "nan", "inf", "-1", "0", "1e400", "-1e308", "99999999999999999999999", "", "[/b]", "[red]x", "\x00", "ä" * 40, "null", "true",
    "1e-320", "--", "%s", "{}", "\t", "ITEM:", "0x10", "1_0", "…", "1,5", "None", "[1,2", "*a", "&a [*a]",
    "!!python/object:os.system",
]  # fmt: skip
"""What stands in the place of a word."""


class Pair(nn.Module):
    """Smooth Lennard-Jones with a scale for each element, the smallest network that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.cutoff = 6.0
        self.scale = nn.Parameter(torch.tensor([0.0104, 0.0140], dtype=torch.float64))

    def atomic_energies(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Energies [N] eV."""
        r = torch.linalg.vector_norm(vectors, dim=1)
        attraction = (3.4 / r).pow(6)
        fade = (1.0 - (r / self.cutoff).square()).clamp(min=0.0).pow(3)
        scale = self.scale.index_select(0, species)
        both = scale.index_select(0, edge_index[0]) * scale.index_select(0, edge_index[1])
        pair = 4.0 * both.sqrt() * (attraction.square() - attraction) * fade
        energies = torch.zeros(species.size(0), dtype=torch.float64, device=vectors.device)
        return energies.index_add(0, edge_index[0], 0.5 * pair.double())

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Energies, forces and virial, for hosts that know no edges."""
        along = shifts.to(cell.dtype)
        offset = along[:, 0:1] * cell[0] + along[:, 1:2] * cell[1] + along[:, 2:3] * cell[2]
        vectors = positions.index_select(0, edge_index[1]) - positions.index_select(0, edge_index[0]) + offset
        vectors = vectors.detach().requires_grad_(True)
        energies = self.atomic_energies(vectors, species, edge_index)
        gradient = torch.autograd.grad([energies.sum()], [vectors])[0]
        if gradient is None:
            raise RuntimeError("the energy does not depend on the edges")
        forces = torch.zeros_like(positions)
        forces = forces.index_add(0, edge_index[0], gradient).index_add(0, edge_index[1], -gradient)
        return energies.detach(), forces, -torch.matmul(vectors.detach().t(), gradient)


class Harm:
    """What makes a file where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def positions() -> np.ndarray:
    """Six atoms near their distances [A]."""
    grid = np.array([[x, y, z] for x in range(3) for y in range(2) for z in range(1)], float)
    return 3.7 * grid + 0.2 * np.random.default_rng(1).normal(size=(6, 3))


def topology() -> app.Topology:
    """The atoms as OpenMM knows them, without a box."""
    made = app.Topology()
    residue = made.addResidue("X", made.addChain())
    for k, symbol in enumerate(SYMBOLS):
        made.addAtom(f"{symbol}{k}", app.Element.getBySymbol(symbol), residue)
    return made


def artifact(folder: Path) -> Path:
    """Write the network as an artifact."""
    path = folder / "pair.pt"
    about = Metadata(
        kind="potential", architecture="pair", species=["Ar", "Kr"], masses=[39.948, 83.798], cutoff=6.0, dtype="float64",
        description="smooth pairs",
    )  # fmt: skip
    save(Pair(), about, path)
    return path


def frames(count: int = 12) -> Frames:
    """A trajectory with everything in it."""
    rng = np.random.default_rng(2)
    path = positions() + 0.01 * rng.normal(size=(count, 6, 3)).cumsum(0)
    return Frames(
        numbers=np.array([ase.Atom(s).number for s in SYMBOLS]), positions=path,
        cell=np.broadcast_to(np.diag([14.0, 12.0, 11.0]), (count, 3, 3)).copy(), pbc=np.ones(3, bool),
        energy=rng.normal(size=count), forces=rng.normal(size=path.shape),
        velocities=0.001 * rng.normal(size=path.shape), time_fs=10.0 * np.arange(count),
    )  # fmt: skip


def trajectories(folder: Path) -> dict[str, Path]:
    """Write the trajectory in each format that needs no other file; returns the paths by their endings."""
    run = frames()
    run.save(folder / "run.npz")
    images = []
    for k in range(len(run)):
        atoms = ase.Atoms(run.numbers, run.positions[k], cell=run.cell[k], pbc=True)
        atoms.info["time"] = float(run.time_fs[k])  # type: ignore[index]
        atoms.set_velocities(run.velocities[k] / ase.units.fs)  # type: ignore[index]
        images.append(atoms)
    ase.io.write(folder / "run.extxyz", images)
    ase.io.write(folder / "run.traj", images)
    lines = []
    for k in range(len(run)):
        lines += ["ITEM: UNITS", "metal", "ITEM: TIME", f"{run.time_fs[k] / 1000}", "ITEM: TIMESTEP", str(k)]  # type: ignore[index]
        lines += ["ITEM: NUMBER OF ATOMS", "6", "ITEM: BOX BOUNDS pp pp pp", "0 14", "0 12", "0 11"]
        lines.append("ITEM: ATOMS id element x y z vx vy vz")
        for i in range(6):
            numbers = " ".join(f"{x:.8f}" for x in (*run.positions[k, i], *(1000 * run.velocities[k, i])))  # type: ignore[index]
            lines.append(f"{i + 1} {SYMBOLS[i]} {numbers}")
    (folder / "run.dump").write_text("\n".join(lines) + "\n")
    atoms_json = [{"index": i, "name": s, "element": s} for i, s in enumerate(SYMBOLS)]
    tree = {"chains": [{"index": 0, "residues": [{"index": 0, "name": "X", "atoms": atoms_json}]}], "bonds": []}
    with h5py.File(folder / "run.h5", "w") as file:
        file["coordinates"] = np.float32(run.positions / 10)
        file["velocities"] = np.float32(run.velocities * 100)  # type: ignore[operator]
        file["time"] = np.float32(run.time_fs / 1000)  # type: ignore[operator]
        file["cell_lengths"] = np.float32(np.tile([1.4, 1.2, 1.1], (len(run), 1)))
        file["cell_angles"] = np.float32(np.full((len(run), 3), 90.0))
        file["topology"] = np.array([json.dumps(tree).encode()])  # of one length, as mdtraj writes it
    return {path.suffix: path for path in sorted(folder.glob("run.*"))}


def state_table() -> str:
    """What StateDataReporter writes."""
    head = (
        '#"Step","Time (ps)","Potential Energy (kJ/mole)","Kinetic Energy (kJ/mole)","Temperature (K)","Speed (ns/day)"'
    )
    rows = [f"{k},{k * 0.001},{-100 + 0.1 * k},{10 - 0.1 * k},{300 + k},{0 if k else '--'}" for k in range(40)]
    return "\n".join([head, *rows]) + "\n"


def config() -> str:
    """A configuration with every section."""
    return """name: toy
model: &model {architecture: esen, cutoff: 4.0, num_layers: 2, l_max: 2, channels: 16}
data:
  files: [train.npz, other.npz]
  validation_fraction: 0.1
  batch_size: 4
loss: {energy: 2.0, force: 10.0}
optimiser:
  learning_rate: 1e-3
  warmup_steps: 100
trainer:
  steps: 1000
  validate_every: 100
"""


def checkpoint() -> bytes:
    """A checkpoint of training."""
    weights = torch.randn(40, 30, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    facts = {"config": {"name": "toy"}, "species": ["O", "Si"]}
    return checkpoint_bytes({"global_step": 7, "equistride": facts, "state_dict": {"model.w": weights}})


def damaged(data: bytes, rng: Rng) -> bytes:
    """Damage bytes: a bit, some bytes, 512 zeros, an end, a piece twice, a piece out, a piece elsewhere.
    Nothing stays nothing."""
    size = len(data)
    if not size:
        return data
    place, other = sorted(int(k) for k in rng.integers(size, size=2))
    kind = rng.integers(7)
    if kind == 0:
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        return bytes(changed)
    if kind == 1:
        changed = bytearray(data)
        for k in rng.integers(size, size=8):
            changed[int(k)] = int(rng.integers(256))
        return bytes(changed)
    if kind == 2:
        return data[:place] + bytes(min(512, size - place)) + data[place + 512 :]
    if kind == 3:
        return data[:place]
    if kind == 4:
        return data[:other] + data[place:other] + data[other:]
    if kind == 5:
        return data[:place] + data[other:]
    return data[:place] + rng.bytes(int(rng.integers(1, 64))) + data[place:]


def edited(text: str, rng: Rng) -> str:
    """Edit a text: a line out, twice or elsewhere, a word for an odd one, a number another, a sign out."""
    lines = text.splitlines(keepends=True)
    k, j = (int(x) for x in rng.integers(len(lines), size=2))
    kind = rng.integers(6)
    if kind == 0:
        del lines[k]
    elif kind == 1:
        lines.insert(k, lines[j])
    elif kind == 2:
        lines[k], lines[j] = lines[j], lines[k]
    elif kind == 3:
        words = lines[k].replace(",", " , ").split(" ")
        words[int(rng.integers(len(words)))] = ODD[int(rng.integers(len(ODD)))]
        lines[k] = " ".join(words).replace(" , ", ",")
    elif kind == 4:
        place = int(rng.integers(len(lines[k])))
        lines[k] = lines[k][:place] + ODD[int(rng.integers(len(ODD)))] + lines[k][place + 1 :]
    else:
        return text[: int(rng.integers(len(text)))]
    return "".join(lines)


def resealed(source: Path, change: Callable[[str, bytes], bytes]) -> bytes:
    """Change records of an artifact and write its digest anew, as one could who means harm."""
    with zipfile.ZipFile(source) as old:
        before = {name: old.read(name) for name in old.namelist()}
    folder = next(iter(before)).partition("/")[0]
    records = {name.partition("/")[2]: change(name.partition("/")[2], data) for name, data in before.items()}
    hashes = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in records.items()
        if name != "extra/digest.json" and not name.startswith(".data/")
    }
    records["extra/digest.json"] = json.dumps({"algorithm": "sha256", "records": hashes}).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as new:
        for name, data in records.items():
            new.writestr(f"{folder}/{name}", data)
    return target.getvalue()


def other_field(metadata: dict[str, Any], rng: Rng) -> dict[str, Any]:
    """Give one field of the metadata, at any depth, an odd value, or take it out."""
    changed = json.loads(json.dumps(metadata))
    place, key = changed, str(rng.choice(sorted(changed)))
    while isinstance(place[key], dict) and place[key] and rng.random() < 0.6:
        place = place[key]
        key = str(rng.choice(sorted(place)))
    odd: list[Any] = [
        None, True, -1, 0, 1, 7, 1e-300, 1e300, float("nan"), float("inf"), 60.0, 10**30, -(10**30), "", "x", "[/b]", "[red]",
        "\u0000", "é" * 200, [], ["Ar"], ["Kr", "Ar"], ["Ar", "Ar"], [1, [2, [3]]], {}, {"a": {"b": 1}}, "float32", "float16",
        "propagator", "all", "equistride", "../../x", "{0}", "%n", [None], {"": ""}, 2, 3, 65, 1.5,
    ]  # fmt: skip
    if rng.random() < 0.1:
        del place[key]
    else:
        place[key] = odd[int(rng.integers(len(odd)))]
    return changed
