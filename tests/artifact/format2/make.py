"""How the frozen artifacts of format 2 and their outputs were made, as those of format 1 were.

``python make.py FOLDER`` writes small artifacts and ``outputs.npz``. The files stay as they are, whatever later versions write;
kinds that came later get files of their own.
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "format1")]

import make as first  # noqa: E402
from test_formats import outputs_of  # noqa: E402

from equistride.artifact import load  # noqa: E402
from equistride.artifact.dispersion import with_dispersion  # noqa: E402
from equistride.artifact.ensemble import combine  # noqa: E402
from equistride.importers.mace import import_mace  # noqa: E402
from equistride.importers.sevennet import import_sevennet  # noqa: E402

DATA = HERE.parents[1] / "data"


def main(folder: Path) -> None:
    sizes = {"num_layers": 1, "channels": 4, "hidden_channels": 4, "edge_channels": 4}
    first.potential(folder / "esen-float32.pt", "float32", **sizes, l_max=1, m_max=1)
    first.potential(folder / "esen-charged-float64.pt", "float64", fused=False, seed=1, charge_spin="linear", **sizes,
                    l_max=1, m_max=1, system={"charge": -1.0, "spin": 2.0})  # fmt: skip
    first.propagator(folder / "trajcast-float32.pt", "float32", None)
    import_sevennet(
        DATA / "nequip" / "sevennet-c.pth", folder / "sevennet-float64.pt", elements=["O", "Si"], dtype="float64"
    )
    unpacked = folder / "residual.model"
    unpacked.write_bytes(lzma.decompress((DATA / "mace" / "residual.model.xz").read_bytes()))
    import_mace(unpacked, folder / "mace-float64.pt", dtype="float64")
    unpacked.unlink()
    members = [folder / "member0.pt", folder / "member1.pt"]
    for seed, path in enumerate(members):
        first.potential(path, "float32", seed=5 + seed, fused=False, num_layers=1, l_max=1, m_max=1)
    combine(members, folder / "ensemble-float32.pt")
    with_dispersion(members[0], folder / "dispersion-float32.pt", "pbe")
    for path in members:
        path.unlink()

    found: dict[str, np.ndarray] = {}
    stored = np.load(HERE.parent / "format1" / "outputs.npz")
    for name in ("crystal", "molecule"):
        frame = {key: stored[f"{name}/{key}"] for key in ("positions", "numbers", "cell", "velocities")}
        found |= {f"{name}/{key}": value for key, value in frame.items()}
        for path in sorted(folder.glob("*.pt")):
            outputs = outputs_of(load(path), frame, periodic=name == "crystal")
            found |= {f"{name}/{path.stem}/{key}": value.numpy() for key, value in outputs.items()}
    np.savez_compressed(folder / "outputs.npz", capability=torch.backends.cpu.get_cpu_capability(), **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
