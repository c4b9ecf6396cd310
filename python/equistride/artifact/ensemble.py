"""An ensemble in one artifact: several weight sets over one graph, their mean, and how far they disagree.

The ensemble is a potential like any other: energies, forces and virial are the means over its members, so the forces are the
exact gradient of the mean energy. Beside that its module offers ``uncertainty``, the disagreement about each atom's force.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from equistride import __version__
from equistride.artifact.archive import save, script_of
from equistride.artifact.metadata import Metadata
from equistride.artifact.model import Model, load
from equistride.artifact.structure import read_structure
from equistride.errors import EquistrideError

ROUNDING = 1e-5
"""Forces of one network in float32 and float64 differ by less, as a share of the largest."""


class Ensemble(nn.Module):
    """The mean of potentials that share species and cutoff.

    Parameters
    ----------
    members
        Scripted modules that obey the contract of a potential.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.count = len(members)

    def forward(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return atomic energies [N] eV, forces [N, 3] eV/A and virial [3, 3] eV, each the mean over the members."""
        energies = torch.zeros(positions.size(0), dtype=torch.float64, device=positions.device)
        forces, virial = torch.zeros_like(positions), torch.zeros_like(cell)
        for member in self.members:
            e, f, w = member(positions, species, cell, edge_index, shifts)
            energies, forces, virial = energies + e, forces + f, virial + w
        return energies / self.count, forces / self.count, virial / self.count

    @torch.jit.export
    def uncertainty(
        self, positions: Tensor, species: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> Tensor:
        """Return the members' disagreement about the force on each atom [N], eV/A.

        ``sqrt(sum_m |F_m - mean F|^2 / (3 (M - 1)))``: the sample standard deviation, as the rms of its three components.
        """
        forces: list[Tensor] = []
        for member in self.members:
            forces.append(member(positions, species, cell, edge_index, shifts)[1].double())
        return torch.sqrt(torch.stack(forces).var(0).mean(1))


class JoinableEnsemble(Ensemble):
    """An ensemble whose members all offer ``atomic_energies``, so that many frames run in one call."""

    @torch.jit.export
    def atomic_energies(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return the mean atomic energies [N] eV from edge vectors [E, 3] A."""
        energies = torch.zeros(species.size(0), dtype=torch.float64, device=vectors.device)
        for member in self.members:
            energies = energies + member.atomic_energies(vectors, species, edge_index).double()  # type: ignore[operator]
        return energies / self.count


def _check_different(paths: Sequence[Path], models: Sequence[Model]) -> None:
    """Refuse members with the same forces but for rounding, as two exports of one network have."""
    forces: list[Tensor] = []
    for path, model in zip(paths, models, strict=True):
        mine = read_structure(None, model).evaluate(model).forces.double()
        for other, theirs in zip(paths, forces, strict=False):
            if (mine - theirs).abs().max() <= ROUNDING * theirs.abs().max():
                raise EquistrideError(
                    f"{other} and {path} have the same forces: they are one network, exported twice",
                    hint="equal members have no disagreement: give networks that were trained apart",
                )
        forces.append(mine)


def _check_alike(paths: Sequence[Path], facts: Sequence[Metadata]) -> None:
    """The members must be potentials that read one and the same graph."""
    for path, one in zip(paths, facts, strict=True):
        if one.kind != "potential":
            raise EquistrideError(f"{path} cannot be a member", expected="a potential", found=f"a {one.kind}")
        if one.members > 1:
            raise EquistrideError(f"{path} is an ensemble itself", hint="give its members")
        same = {
            "elements": (one.species, facts[0].species),
            "cutoff": (one.cutoff, facts[0].cutoff),
            "charge and spin": (one.system, facts[0].system),
            "composition": (one.composition, facts[0].composition),
        }
        for name, (mine, first) in same.items():
            if mine != first:
                raise EquistrideError(
                    f"{path} has not the {name} of {paths[0]}, and members share one graph",
                    expected=first,
                    found=mine,
                    hint="train the members with one configuration and different seeds",
                )


def combine(paths: Sequence[Path], output: Path, *, description: str = "") -> Metadata:
    """Write several artifacts as one ensemble.

    Parameters
    ----------
    paths
        Two potentials or more, with the same elements (in the same order) and cutoff; best of one configuration, trained with
        different seeds.
    output
        Where the ensemble goes.
    description
        For the metadata; made of the members' by default.

    Returns
    -------
    Metadata
        What the file says of itself. The precision is double where a member's is.

    Raises
    ------
    EquistrideError
        For fewer than two members, the same file or network twice, members that do not fit each other, or files that are no
        potential.
    """
    paths = [Path(path) for path in paths]
    if len(paths) < 2:
        raise EquistrideError("an ensemble needs members", expected="two artifacts or more", found=len(paths))
    models = [load(path) for path in paths]
    facts = [model.metadata for model in models]
    _check_alike(paths, facts)
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    if len(set(hashes)) < len(hashes):
        first = next(k for k, h in enumerate(hashes) if h in hashes[:k])
        raise EquistrideError(
            f"{paths[first]} is in the ensemble twice", hint="equal members have no disagreement: give different ones"
        )
    members = [script_of(path) for path in paths]
    _check_different(paths, models)
    joinable = all(one.capabilities.decomposable for one in facts)
    module = (JoinableEnsemble if joinable else Ensemble)(members)
    names = sorted({one.architecture for one in facts})
    metadata = Metadata(
        kind="potential",
        architecture="+".join(names),
        description=description or f"ensemble of {len(facts)}: {facts[0].description}".rstrip(": "),
        species=facts[0].species,
        masses=facts[0].masses,
        cutoff=facts[0].cutoff,
        message_passing_steps=max(one.message_passing_steps for one in facts),
        dtype="float64" if any(one.dtype == "float64" for one in facts) else "float32",
        periodic="required" if any(one.periodic == "required" for one in facts) else "any",
        system=facts[0].system,
        composition=facts[0].composition,
        global_sums=sum(one.global_sums for one in facts),
        conservative=all(one.conservative for one in facts),
        caveats=sorted({caveat for one in facts for caveat in one.caveats}),
        members=len(facts),
        num_parameters=sum(one.num_parameters for one in facts),
        provenance={
            "members": [
                {"file": p.name, "sha256": h, **f.provenance} for p, h, f in zip(paths, hashes, facts, strict=True)
            ],
            "exported_by": f"equistride {__version__}, torch {torch.__version__}",
        },
        licence=", ".join(sorted({one.licence for one in facts if one.licence})),
        references=list(dict.fromkeys(r for one in facts for r in one.references)),
    )
    return save(module, metadata, output)
