"""How the frozen artifacts of format 1 and their outputs were made: with the last equistride that wrote that format.

``python make.py FOLDER`` writes one small artifact of each kind, of random weights, and ``outputs.npz`` with what that version
computed for them, as numbers of the precision that it computed in. Later versions write another format, so this script is a
record: the files stay as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from equistride.artifact import load
from equistride.artifact.ensemble import combine
from equistride.artifact.export import build_potential, save_potential
from equistride.artifact.propagators import build_propagator, save_propagator
from equistride.data.quartz import quartz
from equistride.models.equiformer import EquiformerConfig
from equistride.models.esen import ESENConfig
from equistride.models.trajcast import TrajCastConfig

SMALL = {"cutoff": 4.0, "num_layers": 2, "channels": 8, "hidden_channels": 8, "edge_channels": 8}
FACTS = {"species": ["O", "Si"], "scale": 1.3, "references": [-3.1, -5.7]}


def stirred(module: torch.nn.Module) -> torch.nn.Module:
    """Give weights that start as ones, zeros or 1e-3 others, which hide no error."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "norm" in name or name.endswith(("sender", "receiver")):
                weight += 0.3 * torch.randn_like(weight)
    return module


def potential(
    path: Path, dtype: str, *, fused: bool = True, seed: int = 0, system: dict | None = None, **sizes
) -> None:
    torch.manual_seed(seed)
    config = ESENConfig.model_validate(SMALL | sizes)
    made = stirred(build_potential(config, FACTS).double())
    if system:
        made.network.set_system(*system.values())
    save_potential(made, config, path, dtype=dtype, fused=fused, system=system, provenance={})


def equiformer(path: Path) -> None:
    torch.manual_seed(3)
    config = EquiformerConfig(cutoff=4.0, num_layers=2, channels=[8, 4, 4], head_channels=[4, 2, 2], num_heads=2,
                              hidden_channels=[8, 4, 4], scalar_channels=8, num_basis=8, radial_channels=8,
                              avg_num_neighbors=12.0, avg_num_atoms=9.0, smooth=True)  # fmt: skip
    made = stirred(build_potential(config, FACTS).double())
    save_potential(made, config, path, dtype="float64", fused=False, provenance={})


def propagator(path: Path, dtype: str, tables: float | None) -> None:
    torch.manual_seed(4)
    config = TrajCastConfig(cutoff=4.0, max_speed=0.1, avg_num_neighbors=12.0, num_layers=2, channels=8,
                            radial_widths=(8,), speed_widths=(8,))  # fmt: skip
    facts = {"species": ["O", "Si"], "masses": [15.999, 28.085], "stride_fs": 10.0, "rms_displacement": 0.03,
             "rms_velocity": 0.004}  # fmt: skip
    save_propagator(stirred(build_propagator(config, facts).double()), path, dtype=dtype, tables=tables)


def main(folder: Path) -> None:
    potential(folder / "esen-fused-float32.pt", "float32", num_layers=1, channels=4, hidden_channels=4, edge_channels=4)
    potential(folder / "esen-plain-float64.pt", "float64", fused=False, mirror=False)
    potential(folder / "esen-charged-float32.pt", "float32", seed=1, charge_spin="linear", num_layers=1, channels=4,
              edge_channels=4, system={"charge": -1.0, "spin": 2.0}, l_max=1, m_max=1)  # fmt: skip
    potential(folder / "esen-direct-float64.pt", "float64", fused=False, forces="direct", max_neighbors=20)
    equiformer(folder / "equiformer-float64.pt")
    propagator(folder / "trajcast-float64.pt", "float64", None)
    propagator(folder / "trajcast-tables-float32.pt", "float32", 1e-4)
    members = [folder / "member0.pt", folder / "member1.pt"]
    for seed, path in enumerate(members):
        potential(path, "float32", seed=5 + seed, fused=False, num_layers=1, l_max=1, m_max=1)
    combine(members, folder / "ensemble-float32.pt")
    for path in members:
        path.unlink()

    crystal, molecule = quartz((1, 1, 1)).repeat((1, 1, 2)), quartz((1, 1, 1))[:5]
    crystal.rattle(0.05, seed=3)
    crystal.wrap()
    random = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for name, atoms, periodic in (("crystal", crystal, True), ("molecule", molecule, False)):
        velocities = 0.01 * random.normal(size=(len(atoms), 3))
        cell = atoms.cell.array if periodic else np.zeros((3, 3))
        found |= {f"{name}/positions": atoms.positions, f"{name}/numbers": atoms.numbers, f"{name}/cell": cell,
                  f"{name}/velocities": velocities}  # fmt: skip
        for path in sorted(folder.glob("*.pt")):
            model = load(path)
            species = model.species_index(atoms.numbers.tolist())
            if model.metadata.kind == "potential":
                out = model.compute(atoms.positions, species, cell, periodic)._asdict()
                if model.metadata.members > 1:
                    out["uncertainty"] = model.uncertainty(atoms.positions, species, cell, periodic)
            else:
                out = model.propagate(atoms.positions, velocities, species, cell, periodic)._asdict()
            found |= {f"{name}/{path.stem}/{key}": value.numpy() for key, value in out.items()}
    np.savez_compressed(folder / "outputs.npz", capability=torch.backends.cpu.get_cpu_capability(), **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
