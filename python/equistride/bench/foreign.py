"""Other programs on given atoms, timed in their own environment; run as a script with the Python that has them.

    python foreign.py FOLDER NAME ...

FOLDER holds ``frame.npz`` (positions, cell, pbc, numbers, edge_index with receivers in row 0, shifts) and ``wanted.json``. For
each name the script writes ``NAME.json``: times and what was run, or why it was not. It needs torch and NumPy, and no
equistride: the sibling ``timing.py`` is loaded by its path.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch


class Prepared(NamedTuple):
    """A peer that is ready to run: the call, what it is, and a check that it did the same work."""

    call: Callable[[], Any]
    title: str
    edges: Callable[[Any], int] | None = None


class Frame:
    """The atoms, as arrays and tensors."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "frame.npz") as stored:
            self.arrays = {name: np.ascontiguousarray(stored[name]) for name in stored.files}
        self.wanted = json.loads((folder / "wanted.json").read_text())
        self.cutoff = float(self.wanted["cutoff"])
        self.dtype = getattr(torch, self.wanted["dtype"])
        self.device = str(self.wanted["device"])
        self.count = len(self.arrays["numbers"])
        self.elements = sorted(set(self.arrays["numbers"].tolist()))

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return an array as a tensor on the device."""
        return torch.tensor(self.arrays[name], dtype=dtype, device=self.device)

    def species(self) -> torch.Tensor:
        """Return the index of each atom's element [N]."""
        return torch.tensor([self.elements.index(n) for n in self.arrays["numbers"].tolist()], device=self.device)

    def shift_vectors(self) -> torch.Tensor:
        """Return shifts @ cell [E, 3] in A."""
        return torch.tensor(self.arrays["shifts"] @ self.arrays["cell"], dtype=self.dtype, device=self.device)

    def sender_first(self) -> torch.Tensor:
        """Return the edges with senders in row 0, as most programs have them."""
        return self.tensor("edge_index").flip(0)


def vesin(frame: Frame) -> Prepared:
    """vesin's full list with shifts."""
    from vesin import NeighborList

    search = NeighborList(cutoff=frame.cutoff, full_list=True, n_threads=torch.get_num_threads())
    a = frame.arrays
    return Prepared(
        lambda: search.compute(a["positions"], a["cell"], a["pbc"], "ijS"), "full list, ijS", lambda out: len(out[0])
    )


def matscipy(frame: Frame) -> Prepared:
    """matscipy-neighbours' full list with shifts."""
    from matscipy_neighbours import neighbour_list

    a = frame.arrays
    return Prepared(
        lambda: neighbour_list("ijS", positions=a["positions"], cell=a["cell"], pbc=a["pbc"], cutoff=frame.cutoff),
        "full list, ijS",
        lambda out: len(out[0]),
    )


def ase(frame: Frame) -> Prepared:
    """ASE's primitive_neighbor_list."""
    from ase.neighborlist import primitive_neighbor_list

    a = frame.arrays
    return Prepared(
        lambda: primitive_neighbor_list("ijS", a["pbc"], a["cell"], a["positions"], frame.cutoff),
        "full list, ijS",
        lambda out: len(out[0]),
    )


def nvalchemi(frame: Frame) -> Prepared:
    """nvalchemi-toolkit-ops' cell list as a neighbour matrix, its fastest form, with rows as long as they need be."""
    import warp
    from nvalchemiops.torch.neighbors import neighbor_list

    warp.config.quiet = True
    positions, cell = frame.tensor("positions", frame.dtype), frame.tensor("cell", frame.dtype)
    pbc = frame.tensor("pbc")
    most = int(np.bincount(frame.arrays["edge_index"][0]).max())

    def call() -> Any:
        return neighbor_list(
            positions, frame.cutoff, cell=cell, pbc=pbc, method="cell_list", max_neighbors=(most + 15) // 8 * 8
        )

    return Prepared(call, "neighbour matrix of the cell list", lambda out: int(out[1].sum()))


def e3nn(frame: Frame) -> Prepared:
    """e3nn's channel-wise tensor product: gather, product, sum over the edges; forward, or forward and backward."""
    from e3nn import o3

    facts = frame.wanted["convolution"]
    torch.set_default_dtype(frame.dtype)
    product = o3.TensorProduct(
        o3.Irreps(facts["irreps_in"]), o3.Irreps(facts["irreps_sh"]), o3.Irreps(facts["irreps_paths"]),
        [(*ends, "uvu", True) for ends in facts["instructions"]], shared_weights=False, internal_weights=False,
    ).to(frame.device)  # fmt: skip
    receiver, sender = frame.tensor("edge_index")
    edges = len(receiver)
    need = (
        (6 if facts["backward"] else 2)
        * edges
        * (product.irreps_out.dim + product.weight_numel)
        * torch.finfo(frame.dtype).bits
        // 8
    )
    if need > facts["most_bytes"]:
        raise MemoryError(f"it would need about {need / 2**30:.0f} GiB for the messages of {edges} edges")
    x = torch.randn(frame.count, product.irreps_in1.dim, device=frame.device).requires_grad_()
    y = torch.randn(edges, product.irreps_in2.dim, device=frame.device)
    weights = torch.randn(edges, product.weight_numel, device=frame.device).requires_grad_()
    seed = torch.randn(frame.count, product.irreps_out.dim, device=frame.device)

    def forward() -> torch.Tensor:
        return x.new_zeros(frame.count, product.irreps_out.dim).index_add(0, receiver, product(x[sender], y, weights))

    def call() -> object:
        if facts["backward"]:
            return torch.autograd.grad(forward(), [x, weights], seed)
        with torch.no_grad():
            return forward()

    return Prepared(call, "o3.TensorProduct 'uvu', gather and index_add")


class Dictionary(dict[str, Any]):
    """A dictionary that a network may also read by attribute."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__

    def get(self, key: str, default: Any = None) -> Any:
        """As of a dictionary, with a keyword."""
        return super().get(key, default)


def fairchem(frame: Frame) -> Prepared:
    """fairchem-core's eSEN of the same layers and channels: energy and forces."""
    from fairchem.core.models.uma.escn_md import MLP_EFS_Head, eSCNMDBackbone

    sizes = frame.wanted["network"]
    torch.manual_seed(3)
    backbone = eSCNMDBackbone(
        max_num_elements=100, sphere_channels=sizes["channels"], hidden_channels=sizes["channels"],
        edge_channels=sizes["channels"], lmax=sizes["l_max"], mmax=sizes["m_max"], num_distance_basis=sizes["basis"],
        num_layers=sizes["layers"], cutoff=frame.cutoff, act_type="gate", ff_type="spectral", use_dataset_embedding=False,
        otf_graph=False, regress_forces=True, direct_forces=False, regress_stress=False, max_neighbors=300,
    )  # fmt: skip
    head = MLP_EFS_Head(backbone)
    for module in (backbone, head):
        module.requires_grad_(False).eval().to(frame.device, frame.dtype)
    edges = frame.sender_first()
    data = {
        "cell": frame.tensor("cell", frame.dtype)[None], "atomic_numbers": frame.tensor("numbers"),
        "batch": torch.zeros(frame.count, dtype=torch.long, device=frame.device), "natoms": torch.tensor([frame.count]),
        "pbc": frame.tensor("pbc")[None], "edge_index": edges, "cell_offsets": frame.tensor("shifts", frame.dtype),
        "nedges": torch.tensor([edges.shape[1]]), "charge": torch.zeros(1), "spin": torch.zeros(1), "dataset": ["omat"],
    }  # fmt: skip
    positions = frame.tensor("positions", frame.dtype)

    def call() -> object:
        fresh = Dictionary(data, pos=positions.clone().requires_grad_())
        return head(fresh, backbone(fresh))

    count = sum(p.numel() for m in (backbone, head) for p in m.parameters())
    return Prepared(call, f"eSEN {sizes['layers']}x{sizes['channels']}, {count} parameters")


def nequip(frame: Frame) -> Prepared:
    """nequip's network with as many layers and channels and degrees up to 2: energy, forces and virial, eager."""
    from nequip.model import NequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state()
    sizes = frame.wanted["network"]
    edges, shifts = frame.tensor("edge_index"), frame.tensor("shifts", torch.float64)
    model = NequIPGNNModel(
        seed=1, model_dtype=str(frame.dtype).removeprefix("torch."), r_max=frame.cutoff,
        type_names=[str(n) for n in frame.elements], num_layers=sizes["layers"], l_max=sizes["l_max"], parity=False,
        num_features=sizes["channels"], avg_num_neighbors=edges.shape[1] / frame.count,
    ).to(frame.device)  # fmt: skip
    model.eval().requires_grad_(False)
    data = {
        "pos": frame.tensor("positions", torch.float64), "edge_index": edges, "edge_cell_shift": shifts,
        "cell": frame.tensor("cell", torch.float64)[None], "pbc": frame.tensor("pbc")[None], "atom_types": frame.species(),
        "batch": torch.zeros(frame.count, dtype=torch.long, device=frame.device),
        "num_atoms": torch.tensor([frame.count], device=frame.device),
    }  # fmt: skip
    count = sum(p.numel() for p in model.parameters())
    title = f"NequIP {sizes['layers']}x{sizes['channels']}, l <= {sizes['l_max']}, {count} parameters, eager"
    return Prepared(lambda: model(dict(data)), title)


def mace(frame: Frame) -> Prepared:
    """mace-torch's network with as many layers and channels, hidden features up to l = 1 and correlation 3: energy, forces."""
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # its e3nn keeps its own constants in a pickle
    from e3nn import o3
    from mace.modules import ScaleShiftMACE, interaction_classes

    sizes = frame.wanted["network"]
    torch.set_default_dtype(frame.dtype)
    torch.manual_seed(1)
    edges = frame.sender_first()
    model = ScaleShiftMACE(
        atomic_inter_scale=1.0, atomic_inter_shift=0.0, r_max=frame.cutoff, num_bessel=8, num_polynomial_cutoff=5,
        max_ell=2, interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=interaction_classes["RealAgnosticResidualInteractionBlock"],
        num_interactions=sizes["layers"], num_elements=len(frame.elements),
        hidden_irreps=o3.Irreps(f"{sizes['channels']}x0e + {sizes['channels']}x1o"), MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(frame.elements)), avg_num_neighbors=edges.shape[1] / frame.count,
        atomic_numbers=frame.elements, correlation=3, gate=torch.nn.functional.silu,
    ).to(frame.device)  # fmt: skip
    model.eval().requires_grad_(False)
    one_hot = torch.nn.functional.one_hot(frame.species(), len(frame.elements)).to(frame.dtype)
    positions = frame.tensor("positions", frame.dtype)
    data = {
        "node_attrs": one_hot, "edge_index": edges, "shifts": frame.shift_vectors(),
        "unit_shifts": frame.tensor("shifts", frame.dtype), "cell": frame.tensor("cell", frame.dtype),
        "batch": torch.zeros(frame.count, dtype=torch.long, device=frame.device),
        "ptr": torch.tensor([0, frame.count], device=frame.device),
    }  # fmt: skip

    def call() -> object:
        return model({**data, "positions": positions.clone()}, compute_force=True)

    count = sum(p.numel() for p in model.parameters())
    title = f"MACE {sizes['layers']}x{sizes['channels']}, L = 1, correlation 3, {count} parameters, eager"
    return Prepared(call, title)


def trajcast(frame: Frame) -> Prepared:
    """IBM/trajcast's network of the published sizes, one stride on given edges."""
    from trajcast.data.atomic_graph import AtomicGraph
    from trajcast.model.models import EfficientTrajCastModel

    torch.set_default_dtype(frame.dtype)
    torch.manual_seed(1)
    sizes, count = frame.wanted["propagator"], frame.count
    edges = frame.tensor("edge_index")  # the vector of an edge points from its first atom to its second, as ours
    widths = {"n_neurons": list(sizes["widths"]), "activation": "silu"}
    config = {
        "num_chem_elements": len(frame.elements), "edge_cutoff": frame.cutoff, "num_edge_rbf": sizes["radial"],
        "num_edge_poly_cutoff": 6, "num_vel_rbf": sizes["speed"], "vel_max": 0.05, "max_rotation_order": sizes["l_max"],
        "num_hidden_channels": sizes["channels"], "num_mp_layers": sizes["layers"],
        "avg_num_neighbors": edges.shape[1] / count, "edge_mlp_kwargs": dict(widths), "vel_mlp_kwargs": dict(widths),
        "nl_gate_kwargs": {
            "activation_scalars": {"o": "tanh", "e": "silu"}, "activation_gates": {"e": "silu"},
        },
        "conserve_ang_mom": False, "net_lin_mom": [0.0, 0.0, 0.0], "net_ang_mom": [0.0, 0.0, 0.0],
    }  # fmt: skip
    model = EfficientTrajCastModel(config=config, rms_targets=[0.1, 0.005], mean_targets=[0.0, 0.0]).to(frame.device)
    model.eval().requires_grad_(False)
    masses = torch.ones(count, 1, device=frame.device)
    data = {
        "pos": frame.tensor("positions", frame.dtype), "edge_index": edges, "shifts": frame.shift_vectors(),
        "velocities": 0.005 * torch.randn(count, 3, device=frame.device), "atom_types": frame.species()[:, None],
        "atomic_masses": masses, "total_mass": masses.sum(), "cutoff_radius": frame.cutoff,
        "batch": torch.zeros(count, dtype=torch.long, device=frame.device),
    }  # fmt: skip
    parameters = sum(p.numel() for p in model.parameters())

    def call() -> object:
        with torch.no_grad():
            return model(AtomicGraph(**data)).target

    return Prepared(call, f"TrajCast {sizes['layers']}x{sizes['channels']}, {parameters} parameters")


PEERS: dict[str, tuple[str, Callable[[Frame], Prepared]]] = {
    "vesin": ("vesin", vesin),
    "matscipy-neighbours": ("matscipy-neighbours", matscipy),
    "ase": ("ase", ase),
    "nvalchemi": ("nvalchemi-toolkit-ops", nvalchemi),
    "e3nn": ("e3nn", e3nn),
    "fairchem-core": ("fairchem-core", fairchem),
    "nequip": ("nequip", nequip),
    "mace-torch": ("mace-torch", mace),
    "trajcast": ("trajcast", trajcast),
}
"""Distribution and preparation of each peer."""


def _timing() -> Any:
    place = importlib.util.spec_from_file_location("bench_timing", Path(__file__).with_name("timing.py"))
    if place is None or place.loader is None:
        raise ImportError("timing.py does not lie beside this file")
    module = importlib.util.module_from_spec(place)
    sys.modules[place.name] = module
    place.loader.exec_module(module)
    return module


def run(name: str, frame: Frame, timing: Any) -> dict[str, Any]:
    """Time one peer; say why where it cannot be."""
    distribution, prepare = PEERS[name]
    facts: dict[str, Any] = {"peer": name}
    try:
        facts["version"] = version(distribution)
    except ImportError:
        return {**facts, "missing": "not installed"}
    try:
        prepared = prepare(frame)
        if prepared.edges is not None:
            found, expected = prepared.edges(prepared.call()), frame.arrays["edge_index"].shape[1]
            # a distance in float32 may fall on the other side of the cutoff
            if abs(found - expected) > 1e-4 * expected:
                return {**facts, "missing": f"its list has {found} edges instead of {expected}"}
        times = timing.timed(
            prepared.call, frame.wanted["repeats"], seconds=frame.wanted["seconds"], device=frame.device
        )
    except Exception as error:  # whatever another program raises is a finding, not our failure
        traceback.print_exc()
        text = str(error).strip().splitlines()
        return {**facts, "missing": f"{type(error).__name__}: {text[0] if text else ''}"}
    return {
        **facts,
        "title": prepared.title,
        "cpu_seconds": times.cpu,
        "wall_seconds": times.wall,
        "calls": times.calls,
    }


def main() -> None:
    """Run the peers that are named; a file each."""
    folder = Path(sys.argv[1])
    timing = _timing()
    timing.keep_freed_memory()
    frame = Frame(folder)
    torch.set_num_threads(int(frame.wanted["threads"]))
    for name in sys.argv[2:]:
        result = run(name, frame, timing)
        (folder / f"{name}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
