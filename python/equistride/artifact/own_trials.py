"""What a module of one's own is found to be by trying it: nothing that its author says of it is believed.

Each trial evaluates small frames in double precision. The measure of all is ``scale``, the change of a frame's energy when its
atoms move by a tenth of the cutoff.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equistride.artifact.check import random_rotation
from equistride.artifact.own_call import Adapter
from equistride.artifact.reference import reference_structure
from equistride.errors import EquistrideError, first_line
from equistride.graph import neighbor_list
from equistride.models.potential import edge_vectors

BOUND = 1e-6
"""Of the scale: what a network in double precision stays within, and its constants in single precision do too."""
MOST_STEPS = 64
"""Steps of message passing that metadata may declare."""
SPACING = 0.55
"""Of a chain's atoms, in cutoffs: each meets its two neighbours alone."""


class Frame(NamedTuple):
    """Positions [N, 3] A, species [N], cell [3, 3] A, edge_index [2, E] (receiver, sender), shifts [E, 3]."""

    positions: Tensor
    species: Tensor
    cell: Tensor
    edge_index: Tensor
    shifts: Tensor

    @property
    def vectors(self) -> Tensor:
        """Edge vectors [E, 3] A."""
        return edge_vectors(self.positions, self.cell, self.edge_index, self.shifts)


def frame_of(positions: Tensor, species: Tensor, cutoff: float, cell: Tensor | None = None) -> Frame:
    """Return a frame with its neighbours, in a box where there is a cell."""
    box = torch.zeros(3, 3, dtype=positions.dtype) if cell is None else cell
    return Frame(positions, species, box, *neighbor_list(positions, box, cell is not None, cutoff))


def random(*shape: int, seed: int) -> Tensor:
    """Return numbers from -1/2 to 1/2, the same each time."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


@dataclass
class Found:
    """What the trials say."""

    steps: int = 1
    """Message-passing steps."""
    why_not: str = ""
    """What was seen where atoms may not be divided among processes; empty where they may."""


class Lab:
    """Frames of a number of elements and a cutoff [A], and what a module makes of them."""

    def __init__(self, elements: int, cutoff: float) -> None:
        self.elements, self.cutoff = elements, cutoff
        positions, species, cell = reference_structure(elements, cutoff)
        self.box = frame_of(positions, species, cutoff, cell)
        self.moved = frame_of(positions + 0.1 * cutoff * random(len(species), 3, seed=1), species, cutoff, cell)
        blob = 1.6 * cutoff * random(14, 3, seed=2)
        self.blob = frame_of(blob, torch.arange(14) % elements, cutoff)

    def chain(self, count: int, seed: int | None) -> Frame:
        """Return atoms on a line, a little off it: as a load has it where there is no ``seed``."""
        k = torch.arange(count, dtype=torch.float64)
        off = torch.stack([(1.7 * k).sin(), (2.3 * k).cos()], 1) if seed is None else 4 * random(count, 2, seed=seed)
        positions = torch.cat([k[:, None], 0.05 * off], 1) * SPACING * self.cutoff
        return frame_of(positions, (torch.arange(count) + (seed or 0)) % self.elements, self.cutoff)

    def scale(self, network: Adapter) -> float:
        """Return the change of energy that others are measured by [the module's unit], and what rounding may do."""
        some, others = (energies_at(network)(frame) for frame in (self.box, self.moved))
        return max(float((some.sum() - others.sum()).abs()), 1e-7 * float(some.abs().sum()), 1e-12)


def energies_at(network: Adapter) -> Callable[[Frame], Tensor]:
    """Return the function from a frame to atomic energies [N], of a network that is given positions."""

    def energies(frame: Frame) -> Tensor:
        return network.at(*frame).detach().double()

    return energies


def energies_by_edges(network: nn.Module, frame: Frame) -> Tensor:
    """Return atomic energies [N] of a network that is given edge vectors."""
    return network(frame.vectors, frame.species, frame.edge_index).detach().double()


def apart(some: Tensor, others: Tensor) -> float:
    """Return the largest difference of two tensors' numbers; infinite where their shapes differ."""
    if some.shape != others.shape:
        return math.inf
    return float((some - others).abs().max()) if some.numel() else 0.0


def _refuse(what: str, found: float, scale: float, hint: str) -> EquistrideError:
    return EquistrideError(what, found=f"a change of {found / scale:.1g} of the energy's scale", hint=hint)


def require_repeatable(network: Adapter, lab: Lab) -> None:
    """Refuse a module that gives other energies for the same atoms."""
    energies = energies_at(network)
    again, scale = apart(energies(lab.box), energies(lab.box)), lab.scale(network)
    if again > 0.01 * BOUND * scale:
        raise _refuse(
            "the module gives other energies each time that it is asked", again, scale,
            "leave random numbers out of its forward, and call eval() on what has dropout",
        )  # fmt: skip


def require_sound(network: Adapter, lab: Lab) -> None:
    """Refuse a module whose energy is not a function of the atoms' relative places alone, or not a differentiable one.

    Raises
    ------
    EquistrideError
        Where it changes itself, or depends on the order of atoms, on where they are or on axes, or where
        the gradient is not that of the energy.
    """
    energies, box = energies_at(network), lab.box
    scale = lab.scale(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = energies(box)
    energies(box)
    if not bool(torch.isfinite(first).all()):
        raise EquistrideError("the module's energy is not a number on a small frame", found=float(first.sum()))
    changed = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])]
    if changed:
        raise EquistrideError(
            f"the module changes {changed[0].removeprefix('foreign.')} as it is evaluated", expected="weights that stay",
            hint="call eval() on what keeps statistics of batches",
        )  # fmt: skip
    order = torch.randperm(len(first), generator=torch.Generator().manual_seed(4))
    shuffled = frame_of(box.positions[order], box.species[order], lab.cutoff, box.cell)
    found = float((energies(shuffled).sum() - first.sum()).abs())
    if found > BOUND * scale:
        raise _refuse("the module's energy depends on the order of the atoms", found, scale, "let it treat them alike")
    blob = lab.blob
    away = blob._replace(positions=blob.positions + torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64) * lab.cutoff)
    found = float((energies(away).sum() - energies(blob).sum()).abs())
    if found > BOUND * scale:
        raise _refuse("the module's energy depends on where in space the atoms are", found, scale,
                      "let it see edge vectors alone")  # fmt: skip
    turn = torch.from_numpy(random_rotation(7, improper=False))
    turned = box._replace(positions=box.positions @ turn, cell=box.cell @ turn)
    found = float((energies(turned).sum() - first.sum()).abs())
    if found > 10 * BOUND * scale:
        raise _refuse("the module's energy changes when the atoms are turned", found, scale, "use an invariant network")
    _require_gradient(network, lab, scale)


def _require_gradient(network: Adapter, lab: Lab, scale: float) -> None:
    box = lab.box
    leaf = box.positions.clone().requires_grad_(True)
    total = network.at(leaf, *box[1:]).double().sum()
    gradient = None
    if total.requires_grad:
        try:
            (gradient,) = torch.autograd.grad([total], [leaf], allow_unused=True)
        except RuntimeError as error:
            raise EquistrideError(
                f"the module's energy cannot be differentiated ({first_line(error)})",
                hint="let it return energies alone and take no gradient itself: equistride does",
            ) from None
    if gradient is None or not bool(gradient.abs().max() > 0):
        raise EquistrideError(
            "the module's energy has no gradient to the positions", expected="an energy that follows from edge vectors",
            hint="take detach(), no_grad() and rounding out of its forward",
        )  # fmt: skip
    errors = []
    for seed in range(5):  # the one in the middle: a network of ReLU may have a kink in between
        way = random(*leaf.shape, seed=10 + seed)
        step = 1e-4 * lab.cutoff

        def along(h: float, way: Tensor = way) -> float:
            return float(network.at(box.positions + h * way, *box[1:]).detach().double().sum())

        slope = (8 * (along(step) - along(-step)) - along(2 * step) + along(-2 * step)) / (12 * step)
        errors.append(abs(slope - float((gradient * way).sum())))
    size = max(float(gradient.norm()), scale / lab.cutoff)
    found = sorted(errors)[2] / size
    if found > 1e-4:
        raise EquistrideError(
            "the gradient of the module's energy is not that of its finite differences",
            expected="at most 1e-4 of its size", found=f"{found:.1g}",
            hint="part of its forward is cut off from the gradient by detach(), no_grad() or rounding",
        )  # fmt: skip


def jump_at_cutoff(network: Adapter, lab: Lab) -> float:
    """Return by what share of the scale the energy jumps when a neighbour crosses the cutoff."""
    behind = 0.6 * random(6, 3, seed=6)
    behind[:, 0] = -0.35 + 0.8 * behind[:, 0]  # out of reach of the one that crosses
    energies = energies_at(network)

    def at(r: float) -> float:
        places = torch.cat([torch.zeros(1, 3, dtype=torch.float64), torch.tensor([[r, 0.0, 0.0]]).double(), behind])
        species = torch.arange(len(places)) % lab.elements
        return float(energies(frame_of(places * lab.cutoff, species, lab.cutoff)).sum())

    return abs(at(1 - 1e-7) - at(1 + 1e-7)) / lab.scale(network)


def receiver_of(network: Adapter) -> int | None:
    """Return the row of ``edge_index`` whose atom feels an edge; None where both do, or none does."""
    vector = torch.tensor([[0.41, 0.23, -0.17]], dtype=torch.float64) / network.per_angstrom
    species, edge = torch.zeros(2, dtype=torch.int64), torch.tensor([[0], [1]])
    leaf = vector.clone().requires_grad_(True)
    energies = network(leaf, species, edge)
    felt = []
    for atom in (0, 1):
        (gradient,) = torch.autograd.grad([energies[atom]], [leaf], retain_graph=True, allow_unused=True)
        felt.append(gradient is not None and bool(gradient.abs().max() > 0))
    return felt.index(True) if felt.count(True) == 1 else None


def reach(network: Adapter, lab: Lab) -> int:
    """Return how many steps along a chain an atom's energy looks; more than :data:`MOST_STEPS` where it is without end."""
    count = 12
    while True:
        most = 0
        for seed in (None, 1, 2, 3):
            frame = lab.chain(count, seed)
            leaf = frame.vectors.detach().requires_grad_(True)
            energies = network(leaf, frame.species, frame.edge_index)
            (gradient,) = torch.autograd.grad([energies[0].sum()], [leaf], allow_unused=True)
            if gradient is not None:
                atoms = frame.edge_index[1][gradient.abs().sum(1) > 0]
                most = max(most, int(atoms.max()) if len(atoms) else 0)
            # what has no gradient: the place and the kind of an atom further away
            for atom in range(count - 1, most, -1):
                moved = frame.positions.clone()
                moved[atom] += 0.07 * lab.cutoff
                species = frame.species.clone()
                species[atom] = (species[atom] + 1) % lab.elements
                other = frame_of(moved, species, lab.cutoff)
                if apart(network(other.vectors, species, other.edge_index)[0].detach(), energies[0].detach()) > 0:
                    most = atom
                    break
        if most < count - 1 or count > MOST_STEPS:
            return most
        count *= 3


def _parts_error(network: Adapter, frame: Frame, steps: int) -> float:
    """Return how far energies and gradients of parts, summed, are from those of the whole frame."""

    def of(vectors: Tensor, species: Tensor, edges: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        leaf = vectors.detach().requires_grad_(True)
        energies = network(leaf, species, edges).double()[own]
        (gradient,) = torch.autograd.grad([energies.sum()], [leaf], allow_unused=True)
        return energies.detach(), torch.zeros_like(leaf) if gradient is None else gradient

    count = len(frame.species)
    receiver, sender = frame.edge_index
    expected, slope = of(frame.vectors, frame.species, frame.edge_index, torch.arange(count))
    summed = torch.zeros_like(slope)
    worst = 0.0
    for part in range(3):
        own = torch.arange(count) % 3 == part
        inside = own.clone()
        for _ in range(steps):
            inside[sender[inside[receiver]]] = True
        order = torch.cat([own.nonzero().flatten(), (inside & ~own).nonzero().flatten()])  # ghosts come last
        place = torch.full((count,), -1)
        place[order] = torch.arange(len(order))
        kept = (inside[receiver] & inside[sender]).nonzero().flatten()
        kept = kept[torch.argsort(place[receiver[kept]], stable=True)]
        edges = place[frame.edge_index[:, kept]]
        found, gradient = of(frame.vectors[kept], frame.species[order], edges, torch.arange(int(own.sum())))
        worst = max(worst, apart(found, expected[own]))
        summed[kept] += gradient
    return max(worst, apart(summed, slope) * float(frame.vectors.norm(dim=1).max()))


def not_alone(network: Adapter, lab: Lab) -> str:
    """Return how atoms feel others that no edges join to them; empty where they do not."""
    box = lab.box
    count = len(box.species)
    scale = lab.scale(network)
    expected = energies_by_edges(network, box)
    for what, other in (
        ("other atoms are added without an edge to it", lab.chain(2, 1)),
        ("a second frame is added", box),
    ):
        joined = network(
            torch.cat([box.vectors, other.vectors]), torch.cat([box.species, other.species]),
            torch.cat([box.edge_index, other.edge_index + count], 1),
        ).detach().double()  # fmt: skip
        if len(joined) != count + len(other.species):
            return "it does not give one energy an atom"
        found = apart(joined[:count], expected)
        if found > BOUND * scale:
            return f"an atom's energy changes by {found / scale:.1g} of the scale when {what}"
    return ""


def look(network: Adapter, lab: Lab) -> Found:
    """Find out how far the energies of a network look that takes edge vectors, and whether its atoms may be divided."""
    scale = lab.scale(network)
    bound = BOUND * scale
    why_not = not_alone(network, lab)
    if why_not:
        return Found(why_not=why_not)
    box = lab.box
    order = torch.randperm(len(box.species), generator=torch.Generator().manual_seed(4))
    shuffled = frame_of(box.positions[order], box.species[order], lab.cutoff, box.cell)
    if apart(energies_by_edges(network, shuffled), energies_by_edges(network, box)[order]) > bound:
        return Found(why_not="energies of atoms depend on the order of the atoms")
    steps = reach(network, lab)
    if steps > MOST_STEPS:
        return Found(why_not=f"an atom's energy looks further than {MOST_STEPS} neighbours away")
    if steps == 0:
        return Found(why_not="an atom's energy does not feel a neighbour at 0.55 of the cutoff")
    frames = [lab.chain(3 * steps + 6, 5), lab.blob, box]
    worst = max(_parts_error(network, frame, steps) for frame in frames)
    if not worst <= bound:
        return Found(why_not=f"energies of parts, summed, are not that of the whole by {worst / scale:.1g}")
    return Found(steps=steps)


def holds_for_empty(network: Adapter, lab: Lab) -> bool:
    """Whether frames without atoms or edges are fine, as a process that owns none has them."""
    real = torch.zeros(0, 3, dtype=torch.float64)
    for count in (0, 1, 2):
        try:
            found = network(real, torch.zeros(count, dtype=torch.int64), torch.zeros(2, 0, dtype=torch.int64))
        except Exception:  # whatever a module of somebody else raises
            return False
        if list(found.shape) != [count] or not bool(torch.isfinite(found).all()):
            return False
    return True


def require_float32(network: Adapter, lab: Lab) -> None:
    """Refuse a module that does not run in single precision, as engines run it."""
    try:
        single = copy.deepcopy(network).float()
        frame = lab.box._replace(positions=lab.box.positions.float(), cell=lab.box.cell.float())
        found = float((single.at(*frame).detach().double().sum() - energies_at(network)(lab.box).sum()).abs())
    except Exception as error:
        raise EquistrideError(
            f"the module does not run in float32 ({first_line(error)})",
            hint="take the type from what it is given, as in dtype=vectors.dtype, and keep constants in buffers",
        ) from None
    scale = lab.scale(network)
    if not found <= 1e-2 * scale:
        raise EquistrideError(
            "the module gives another energy in float32", found=f"a change of {found / scale:.1g} of the energy's scale",
            expected="at most 0.01", hint="its sums need more digits: let it subtract references of the elements",
        )  # fmt: skip
