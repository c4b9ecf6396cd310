"""eSEN for serving: the plain network's numbers through the fused edge block."""

import copy
import math
from typing import Final, TypeGuard

import torch
from torch import Tensor, nn

import equistride._library  # noqa: F401  (loads torch.ops.equistride)
from equistride.errors import EquistrideError
from equistride.models.esen import ESEN, Block
from equistride.nn.atom_block import AtomBlock, AtomNorm, EnergyHead, PlainAtomBlock
from equistride.nn.bonds import SHORTEST
from equistride.nn.edge_block import Bonds, EdgeBlock, RadialSplines, bond_lengths
from equistride.nn.exchange import exchange, head_rows, local_rows, pad_to_all
from equistride.nn.nearest import nearest
from equistride.nn.radial import RadialNetwork
from equistride.nn.spherical import Gate, SpectralFeedForward

TOLERANCE: Final = 1e-8
"""Largest error of a radial function's spline, as a share of its largest value; energies and forces change less than by
rounding in float32."""
TABLE_BYTES: Final = 256 << 20
"""Largest size of a network's tables; with more pairs of elements only the first layers of the radial networks are splines."""
TYPICAL_ROWS: Final = 6 * 512
"""Rows of a table, to judge its size before it is made."""
KEEP_BYTES: Final = 12 << 30
"""Memory that all layers together may use to spare the backward a second forward; less where there are less than 24 GiB."""


class Radial(nn.Module):
    """A radial network of bond lengths, or its splines."""

    def __init__(self, basis: nn.Module, network: RadialNetwork, sender: nn.Parameter, receiver: nn.Parameter) -> None:
        super().__init__()
        self.basis, self.network, self.sender, self.receiver = basis, network, sender, receiver

    def forward(self, lengths: Tensor, pair: Tensor) -> Tensor:
        """Return [E, columns] for lengths [E] in A and pairs of elements [E]."""
        return self.network(self.basis(lengths), self.sender, self.receiver, pair)

    def splines(self, cutoff: float, tolerance: float) -> RadialSplines:
        """Return the same as splines."""
        exact = copy.deepcopy(self).double().requires_grad_(False)
        with torch.enable_grad():
            return RadialSplines.tabulate(exact, self.sender.size(0) ** 2, SHORTEST * cutoff, cutoff, tolerance)

    def folded(self, cutoff: float, tolerance: float) -> "FoldedRadial":
        """Return the same with splines for the first layer alone, whose error is that share of its largest value."""
        exact = copy.deepcopy(self).double().requires_grad_(False)

        def first(lengths: Tensor, _: Tensor) -> Tensor:
            return exact.network.of_basis(exact.basis(lengths))

        with torch.enable_grad():
            splines = RadialSplines.tabulate(first, 1, SHORTEST * cutoff, cutoff, tolerance)
        made = FoldedRadial(splines, exact.network.of_elements(exact.sender, exact.receiver), self.network)
        made.measure(exact, cutoff)
        return made


class FoldedRadial(nn.Module):
    """A radial network whose first layer is a spline of the bond length, one for all pairs of elements, and a row for each pair.

    Parameters
    ----------
    splines
        Of what the first layer makes of the length.
    rows [pairs, channels]
        What it makes of the elements.
    network
        Whose other layers are computed.

    Attributes
    ----------
    error, slope_error
        Largest measured deviations from the network, as shares of its largest |value| and |slope|.
    """

    rows: Tensor

    def __init__(self, splines: RadialSplines, rows: Tensor, network: RadialNetwork) -> None:
        super().__init__()
        self.splines, self.network = splines, network
        self.error, self.slope_error = math.nan, math.nan
        self.register_buffer("rows", rows)

    def forward(self, lengths: Tensor, pair: Tensor) -> Tensor:
        """Return [E, columns] for lengths [E] in A and pairs of elements [E]."""
        first = self.splines(lengths, torch.zeros_like(pair))
        return self.network.after(first + self.rows.index_select(0, pair))

    @torch.jit.unused
    def measure(self, exact: Radial, cutoff: float) -> None:
        """Compare with the network, float64, at four points in each interval for pairs of elements, up to 32 of them."""
        own = copy.deepcopy(self).double().requires_grad_(False)
        worst, largest = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        step, knots = self.splines.step, self.splines.tables.size(1)
        near = 1e-3 * step  # the operator has no second gradients
        places = SHORTEST * cutoff + step / 4 * (torch.arange(4 * knots, dtype=torch.float64) + 0.5)
        pairs = self.rows.size(0)
        for kind in range(0, pairs, -(-pairs // 32)):
            pair = torch.full([places.numel()], kind)
            found, true = (
                torch.stack([f(places, pair), (f(places + near, pair) - f(places - near, pair)) / (2 * near)])
                for f in (own, exact)
            )
            worst = torch.maximum(worst, (found - true).abs().amax((1, 2)))
            largest = torch.maximum(largest, true.abs().amax((1, 2)))
        self.error, self.slope_error = (worst / largest).tolist()


class FusedBlock(nn.Module):
    """An eSEN block whose edgewise convolution is one operator, and what it does on atoms another; its weights are the plain
    block's."""

    def __init__(self, block: Block, m_max: int, radial: nn.Module, keep: int) -> None:
        super().__init__()
        self.norm = AtomNorm(block.norm1)
        gated = isinstance(block.feed_forward, SpectralFeedForward)
        self.atoms = (AtomBlock if gated else PlainAtomBlock)(block.norm2, block.feed_forward)
        self.radial = radial
        self.edgewise = EdgeBlock(block.edgewise.first, block.edgewise.second, m_max, keep)

    def forward(self, x: Tensor, bonds: Bonds, lengths: Tensor, pair: Tensor, system: Tensor | None) -> Tensor:
        """Return the updated features [n, (l_max+1)^2, C] of own atoms; ``system`` [C] is of charge and spin."""
        messages = self.edgewise(exchange(self.norm(x, system)), bonds, self.radial(lengths, pair))
        return self.atoms(x, head_rows(messages, x))


def _blocks(network: ESEN) -> list[Block]:
    return [block for block in network.blocks if isinstance(block, Block)]


class FusedESEN(nn.Module):
    """An eSEN network with frozen weights for serving: same outputs, several times faster on a CPU.

    Its weights are those of the plain network, which it keeps: for their layout in memory, see :meth:`pack`, and for tensors on a
    GPU where the native library was built without CUDA. Made by :func:`fuse`.

    Parameters
    ----------
    plain
        The network.
    splines
        Take radial functions from splines of this relative error; without it, from their networks.
    """

    def __init__(self, plain: ESEN, splines: float | None = TOLERANCE) -> None:
        super().__init__()
        self.plain = copy.deepcopy(plain)
        self.cutoff, self.l_max, self.channels, self.size = plain.cutoff, plain.l_max, plain.channels, plain.size
        self.num_species = plain.sender.size(0)
        self.error, self.slope_error = 0.0, 0.0
        layers = _blocks(self.plain)
        m_max = len(layers[0].edgewise.first.orders)
        blocks = []
        for block in layers:
            network = copy.deepcopy(block.edgewise.radial, {id(weight): weight for weight in block.parameters()})
            network.last = nn.Identity()  # type: ignore[assignment]
            radial = self._radial(network, splines)
            blocks.append(FusedBlock(block, m_max, radial, KEEP_BYTES // len(layers)))
        self.blocks = nn.ModuleList(blocks)
        self.norm = AtomNorm(self.plain.norm)
        self.head = EnergyHead(self.plain.norm, self.plain.head)
        self.degree = self._radial(self.plain.edge_degree, splines)
        radials = [self.degree, *(block.radial for block in blocks)]
        self.one_operator = plain.system is None and plain.balance is None and (
            all(isinstance(radial, RadialSplines) for radial in radials)
            and all(isinstance(block.atoms, AtomBlock) for block in blocks)
        )  # fmt: skip

    one_operator: Final[bool]

    def _radial(self, network: RadialNetwork, splines: float | None) -> nn.Module:
        plain = self.plain
        radial = Radial(plain.basis, network, plain.sender, plain.receiver)
        columns = network.last.weight.size(0) if isinstance(network.last, nn.Linear) else network.channels
        if splines is None:
            return radial
        size = self.num_species**2 * TYPICAL_ROWS * columns * 8
        tables = radial.splines if size * (len(plain.blocks) + 1) <= TABLE_BYTES else radial.folded
        try:
            made = tables(self.cutoff, splines)
        except EquistrideError:  # too rough for a table of reasonable size: compute it
            return radial
        self.error, self.slope_error = max(self.error, made.error), max(self.slope_error, made.slope_error)
        return made

    @torch.jit.export
    def pack(self) -> None:
        """Lay the blocks' weights out as the kernels of this build read them: once, before the first call."""
        for fused, block in zip(self.blocks, self.plain.blocks):  # noqa: B905 (TorchScript knows no strict=)
            edgewise = block.edgewise
            first, second, last = edgewise.first, edgewise.second, edgewise.radial.last
            fused.edgewise.weights = torch.ops.equistride.edge_block_pack(
                last.weight,
                last.bias,
                first.weights(),
                second.weights(),
                first.mirror and second.mirror,
            )

    @torch.jit.export
    def unpack(self) -> None:
        """Forget the layout, which no file shall hold."""
        for fused in self.blocks:
            fused.edgewise.weights = torch.empty(0)

    @torch.jit.export
    def set_system(self, charge: float, spin: float) -> None:
        """Set total charge [e] and spin multiplicity, as :meth:`ESEN.set_system` does."""
        self.plain.set_system(charge, spin)

    def start(self, scalars: Tensor, bonds: Bonds, radial: Tensor) -> Tensor:
        """Return the first features [N, (l_max+1)^2, C]: of scalars [N, C] and bonds, whose rows of order 0 are ``radial``
        [E, (l_max+1) C]."""
        return torch.ops.equistride.edge_degree(
            scalars, bonds.vectors, bonds.frames, bonds.envelope, radial, bonds.edge_index,
            1.0 / self.plain.edge_degree_scale,
        )  # fmt: skip

    def forward(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N] in units of the target scale; arguments as for :meth:`ESEN.forward`, with edges sorted by
        receiver."""
        if vectors.is_cuda and not torch.ops.equistride.edge_block_on_gpu():
            return self.plain(vectors, species, edge_index)
        if self.plain.max_neighbors > 0:
            limit, slack = self.plain.max_neighbors, self.plain.neighbor_slack
            far = torch.linalg.vector_norm(vectors.detach(), dim=1)
            keep = nearest(far, edge_index[0], species.size(0), limit, slack)
            vectors, edge_index = vectors.index_select(0, keep), edge_index[:, keep]
        if self.one_operator and torch.jit.is_scripting() and not vectors.is_cuda:
            return self.in_one(vectors, species, edge_index)
        return self.by_layers(vectors, species, edge_index)

    def in_one(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return what :meth:`by_layers` does of a network without charge and spin whose radial functions are splines, in one
        operator, on a CPU."""
        weights = [self.plain.embedding.weight, self.degree.tables, self.head.weights]
        knots = [self.degree.start, self.degree.step]
        for block in self.blocks:
            weights += block.norm.weights()
            weights += [block.radial.tables, block.edgewise.weights, block.atoms.weights]
            knots += [block.radial.start, block.radial.step]
        edges, smooth = self.blocks[0].edgewise, self.plain.smooth
        return torch.ops.equistride.esen(
            vectors, species, edge_index, weights, knots, self.cutoff, self.plain.envelope_exponent if smooth else 0,
            1.0 / self.plain.edge_degree_scale, self.plain.norm.eps, edges.l_max, edges.m_max, edges.hidden_channels,
            edges.mirror, edges.keep,
        )  # fmt: skip

    def by_layers(self, vectors: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return atomic energies [N], each layer by operators of its own."""
        r, envelope = bond_lengths(vectors, self.cutoff, self.plain.envelope_exponent if self.plain.smooth else 0)
        frames = torch.ops.equistride.bond_frames(vectors.detach(), self.l_max)
        bonds = Bonds(vectors, frames, envelope, edge_index)
        pair = species.index_select(0, edge_index[0]) * self.num_species + species.index_select(0, edge_index[1])

        system: Tensor | None = None
        scalars = self.plain.embedding(species)
        if self.plain.system is not None:
            system = self.plain.system()
            scalars = scalars + system
        x = local_rows(self.start(scalars, bonds, self.degree(r, pair)))
        for block in self.blocks:
            x = block(x, bonds, r, pair, system)
            if self.plain.balance is not None:
                x = self.plain.balance(x)
        return pad_to_all(self.plain.energies(self.norm(x)), species)


def fusable(network: nn.Module) -> TypeGuard[ESEN]:
    """Whether :func:`fuse` takes this network: an eSEN with gates on its edges, no force head, and degrees to 4."""
    if not isinstance(network, ESEN) or network.force_head is not None or network.l_max > 4:
        return False
    return all(isinstance(block.edgewise.gate, Gate) for block in _blocks(network))


def fuse(network: ESEN, splines: float | None = TOLERANCE) -> FusedESEN:
    """Return a network for serving with the weights of this one.

    Parameters
    ----------
    network
        Trained; it is not changed.
    splines
        Largest error of the splines that stand for the radial networks, relative to their largest value; None computes the
        networks. A network is computed too where 1024 intervals do not reach this error. Where tables of all pairs of
        elements would take more than 256 MB, splines stand for its first layer alone.

    Raises
    ------
    EquistrideError
        Where the network has no fused form.
    """
    if not fusable(network):
        raise EquistrideError(
            "the network cannot be fused",
            expected="an eSEN with gate activations, conservative forces and l_max up to 4",
            found=type(network).__name__,
            hint="serve it in plain torch",
        )
    fused = FusedESEN(network, splines)
    weight = network.embedding.weight
    fused = fused.to(weight.device, weight.dtype).requires_grad_(False)
    fused.pack()
    for part in fused.modules():
        if isinstance(part, AtomBlock | EnergyHead):
            part.pack()
    return fused
