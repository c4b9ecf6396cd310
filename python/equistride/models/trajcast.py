"""TrajCast (arXiv 2503.23794): an equivariant network that jumps from one frame to the next, with no forces between.

Message passing over bonds, conditioned on every atom's velocity; two vectors an atom come out, displacement and new
velocity. Units and conservation laws are added by :class:`equistride.models.propagator.Propagator`.
"""

import copy
import math
from collections.abc import Sequence
from typing import Annotated, Final, Literal, NamedTuple

import torch
from e3nn.o3 import Irrep
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from equistride.errors import EquistrideError
from equistride.nn.bonds import Bonds, TabledConvolution, WeightedConvolution, knots, refuse_short
from equistride.nn.equivariant import (
    EVEN,
    Block,
    Gate,
    IrrepLinear,
    both_parities,
    natural_irreps,
    rows_of,
    with_channels,
)
from equistride.nn.exchange import exchange, head_rows, local_rows, pad_to_all
from equistride.nn.harmonics import SphericalHarmonics
from equistride.nn.radial_table import RadialTable
from equistride.nn.scalar_network import ScalarNetwork
from equistride.nn.speed import LengthBasis, SpeedBasis
from equistride.nn.tensor_product import TensorProductConvolution

Size = Annotated[int, Field(ge=1)]
VECTOR: Final = Irrep("1o")
"""What is read out."""


PORTION: Final = 256
"""Atoms that go through a layer at once on a CPU when serving; of the order of 10 MB at the published size."""


class TrajCastConfig(BaseModel):
    """Sizes of a TrajCast network; the defaults are those of the paper."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["trajcast"] = "trajcast"
    cutoff: float = Field(4.5, gt=0)
    """Cutoff radius [A]."""
    max_speed: float = Field(gt=0)
    """A/fs; faster atoms are refused. 3.5 to 5 times the thermal speed of the lightest element."""
    avg_num_neighbors: float = Field(gt=0)
    """Divides the sum over neighbours."""
    num_layers: Size = 4
    l_max: int = Field(2, ge=1, le=4)
    channels: int = Field(64, ge=4)
    num_radial: Size = 8
    num_speed: Size = 8
    radial_widths: tuple[Size, ...] = (64, 64, 64)
    """Hidden layers of the networks that weight the bonds."""
    speed_widths: tuple[Size, ...] = (64, 64, 64)
    """Hidden layers of the networks that weight the velocities."""
    envelope_exponent: int = Field(6, ge=2)
    parity: bool = True
    """Features have both parities of each degree, as in the paper, or that of the harmonics alone: half the work a layer."""

    def feature_irreps(self) -> list[Irrep]:
        """Return the irreps of messages, and of features between layers."""
        return both_parities(self.l_max) if self.parity else natural_irreps(self.l_max)


class Motion(NamedTuple):
    """What every layer reads of the atoms that it updates: ``itself`` [2, n] edges from each atom to itself, ``harmonics``
    [n, (l_max+1)^2] of the velocities, ``basis`` [n, k] of speed and element (and of the stride, where there are several),
    ``species`` [n], ``one_hot`` [n, S] elements."""

    itself: Tensor
    harmonics: Tensor
    basis: Tensor
    species: Tensor
    one_hot: Tensor


def _contraction(convolution: TensorProductConvolution, outputs: dict[Irrep, int], divisor: float) -> IrrepLinear:
    return IrrepLinear([Block(ir, mul, outputs[ir]) for mul, ir in convolution.irreps_out], divisor)


class TrajCastLayer(nn.Module):
    """One step of message passing, conditioned on the velocities.

    Parameters
    ----------
    config, num_species, num_scalars
        Sizes; of the last, how many scalars there are of an atom's motion.
    inputs
        Irreps of the features, C channels each.
    outputs
        Irreps wanted; only what they need is computed.
    fused
        Run the native convolution, or the plain one.

    Attributes
    ----------
    weights, table
        All weights as the operator that serves the layer reads them, made by :meth:`pack`; nothing in training and files.
    """

    weights: Tensor
    table: Tensor
    tabled: Final[bool]  # the messages' weights come from a table

    def __init__(
        self,
        config: TrajCastConfig,
        num_species: int,
        num_scalars: int,
        inputs: Sequence[Irrep],
        outputs: Sequence[Irrep],
        *,
        fused: bool = True,
    ) -> None:
        super().__init__()
        c = config.channels
        harmonics = natural_irreps(config.l_max)
        sh = with_channels(harmonics, 1)
        self.inputs, self.outputs = sorted(inputs), sorted(outputs)
        targets = {*self.outputs, EVEN}  # scalars gate whatever else is wanted
        messages = [ir for ir in config.feature_irreps() if any(out in targets for y in harmonics for out in ir * y)]

        edge = TensorProductConvolution(with_channels(self.inputs, c), sh, with_channels(messages, c), fused=fused)
        self.messages = WeightedConvolution(edge, [config.num_radial, *config.radial_widths])
        messages = [ir for _, ir in edge.irreps_out]
        self.contraction = _contraction(edge, dict.fromkeys(messages, c), config.avg_num_neighbors)

        self.conditioning = TensorProductConvolution(
            with_channels(messages, c), sh, with_channels(sorted(targets), c), fused=fused
        )
        self.speed_network = ScalarNetwork([num_scalars, *config.speed_widths, self.conditioning.weight_numel])
        reached = {ir for _, ir in self.conditioning.irreps_out}
        self.outputs = [ir for ir in self.outputs if ir in reached]
        self.gate = Gate(self.outputs, c)
        self.update = _contraction(self.conditioning, self.gate.input_channels(), 1.0)

        kept = [ir for ir in self.inputs if ir in self.outputs]
        rows_in = [ir for ir in self.inputs for _ in range(ir.dim)]
        rows_out = [ir for ir in self.outputs for _ in range(ir.dim)]
        self.input_widths = [c] * len(rows_in)
        self.rows_kept = [row for row, ir in enumerate(rows_in) if ir in kept]
        self.old_row = [-1] * len(rows_out)  # for each row out, its place among the rows kept
        for place, row in enumerate(row for row, ir in enumerate(rows_out) if ir in kept):
            self.old_row[row] = place
        self.residual = IrrepLinear([Block(ir, c * num_species, c) for ir in kept])
        self.share = 1.0 / math.sqrt(2.0)
        self.portion = PORTION
        self.num_species, self.channels, self.tabled, self.one_operator = num_species, c, False, True
        self.register_buffer("weights", torch.empty(0), persistent=False)
        self.register_buffer("table", torch.empty(0), persistent=False)
        self.sizes = self._sizes(num_species)
        self.factors = [self.gate.tanh * self.share, self.gate.silu * self.share]

    def _sizes(self, num_species: int) -> list[int]:
        """Return the sizes that the operator asks for: ``LayerShape`` of csrc/trajcast/layer.h."""
        c = self.channels
        widths = [layer.weight.size(1) for layer in self.speed_network.layers]  # type: ignore[operator]
        sizes = [c, num_species, len(widths), *widths, len(self.contraction.blocks)]
        for ir, fan_in, _ in self.contraction.blocks:
            sizes += [ir.dim, fan_in]
        places, column = {}, 0
        sizes.append(len(self.update.blocks))
        for ir, fan_in, fan_out in self.update.blocks:
            sizes += [ir.dim, fan_in, fan_out]
            places[ir] = column
            column += ir.dim * fan_out
        gates = places[EVEN] + c * self.gate.has_even
        kept = {block.irrep for block in self.residual.blocks}
        starts, column = {}, 0
        for ir in self.inputs:
            starts[ir] = column if ir in kept else -1
            column += ir.dim * c
        sizes.append(len(self.outputs))
        for ir in self.outputs:
            opening = 2 if ir.l > 0 else int(ir == EVEN)
            sizes += [ir.dim, opening, places[ir], gates if ir.l > 0 else places[ir], starts.get(ir, -1)]
            gates += c * (ir.l > 0)
        return sizes

    @torch.jit.export
    def pack(self) -> None:
        """Lay the weights out for the operator, where it can serve the layer: once, before the first call."""
        if self.tabled and self.one_operator:
            c = self.channels
            matrices: list[Tensor] = []
            for matrix in self.contraction.matrices():
                matrices += matrix.split(c)  # path by path
            for layer in self.speed_network.layers:
                matrices += layer.factors()  # type: ignore[operator]
            for matrix in self.update.matrices():
                matrices += matrix.split(c)
            kept = self.residual.matrices()
            for element in range(self.num_species):
                for matrix in kept:
                    matrices.append(matrix.unflatten(0, [c, self.num_species])[:, element] * self.share)
            # the table is laid out path by path too
            table = self.messages.convolution.table.coefficients  # type: ignore[union-attr]
            self.table = table.unflatten(1, [-1, c]).transpose(0, 1).reshape(table.size(0), -1)  # type: ignore[operator]
            self.weights = torch.ops.equistride.trajcast_pack(matrices)

    @torch.jit.export
    def unpack(self) -> None:
        """Forget the layout, which no file shall hold."""
        self.weights, self.table = torch.empty(0), torch.empty(0)

    def forward(self, x: Tensor, bonds: Bonds, motion: Motion) -> Tensor:
        """Return the updated features [n, columns] of the first n atoms of ``x`` [N, columns], those whose motion is given.

        Served from tables on a CPU, all is one operator. Elsewhere, without gradients, a portion of atoms at a time goes through
        (0: all): what it needs between stays in the cache.
        """
        wants_gradient = x.requires_grad or bonds.harmonics.requires_grad or motion.harmonics.requires_grad
        if self.tabled and self.weights.numel() > 0 and not x.is_cuda and not wants_gradient:
            return self.in_one(x, bonds, motion)
        count = motion.harmonics.size(0)
        own = head_rows(x, motion.harmonics)
        if self.portion == 0 or count <= self.portion or x.requires_grad or x.is_cuda:
            return self.update_atoms(x, own, bonds, motion)
        firsts = torch.arange(0, count, self.portion, device=x.device)
        starts: list[int] = torch.searchsorted(bonds.ends[0].contiguous(), firsts).tolist()
        starts.append(bonds.ends.size(1))
        out: list[Tensor] = []
        for k in range(firsts.size(0)):
            first, last = k * self.portion, min((k + 1) * self.portion, count)
            start, stop = starts[k], starts[k + 1]
            receivers, senders = bonds.ends[:, start:stop].unbind(0)
            mine = Bonds(
                torch.stack([receivers - first, senders]),
                bonds.lengths[start:stop],
                bonds.harmonics[start:stop],
                bonds.basis[start:stop],
                bonds.pair,
            )
            some = Motion(
                motion.itself[:, : last - first],
                motion.harmonics[first:last],
                motion.basis[first:last],
                motion.species[first:last],
                motion.one_hot[first:last],
            )
            out.append(self.update_atoms(x, own[first:last], mine, some))
        return torch.cat(out, 0)

    def in_one(self, x: Tensor, bonds: Bonds, motion: Motion) -> Tensor:
        """Return the same from one operator, without gradients, on a CPU."""
        messages = self.messages.convolution
        return torch.ops.equistride.trajcast_layer(
            x, bonds.ends, bonds.lengths, bonds.harmonics, self.table, messages.start, messages.step,
            motion.basis, motion.harmonics, motion.species, self.weights, messages.paths, messages.couplings,
            self.conditioning.paths, self.conditioning.couplings, self.sizes, self.factors,
        )  # fmt: skip

    def update_atoms(self, x: Tensor, mine: Tensor, bonds: Bonds, motion: Motion) -> Tensor:
        """Return the updated features of some atoms, ``mine`` [n, columns], which receive from all, ``x`` [N, columns]."""
        count = mine.size(0)
        message = torch.cat(self.contraction(self.messages(x, bonds, count)), 1)
        weights = self.speed_network(motion.basis)
        moved = self.conditioning(message, motion.harmonics, weights, motion.itself, count)
        new = rows_of(self.gate(self.update.images(moved)))
        rows = mine.split(self.input_widths, 1)
        kept = torch.cat([rows[row] for row in self.rows_kept], 1) if len(self.rows_kept) < len(rows) else mine
        old = self.residual((kept[:, :, None] * motion.one_hot[:, None, :]).flatten(1))
        none = torch.zeros_like(new[0]) if len(old) < len(new) else new[0]
        return (
            torch.cat(new, 1) + torch.cat([old[place] if place >= 0 else none for place in self.old_row], 1)
        ) * self.share


class TrajCast(nn.Module):
    """The TrajCast network.

    Parameters
    ----------
    config
        Sizes.
    num_species
        Number of elements; ``species`` indexes them.
    num_strides
        Strides that the network makes, each when :meth:`set_stride` has said so. With several the stride is one of the scalars of
        an atom's motion, which weight all its messages, and has a read-out of its own; bond lengths do not know of it, so that
        their tables serve all.
    fused
        Run the native convolutions, or the plain ones.
    complete
        Let the last layer compute all its features as the published network does, although one is read; see
        :meth:`pruned`.
    """

    elements: Tensor
    strides: Tensor

    def __init__(
        self, config: TrajCastConfig, num_species: int, *, num_strides: int = 1, fused: bool = True, complete: bool = False
    ) -> None:  # fmt: skip
        super().__init__()
        self.config, self.num_species, self.fused, self.complete = config, num_species, fused, complete
        self.num_strides, self.stride = num_strides, 0
        c = config.channels
        self.l_max, self.cutoff = config.l_max, config.cutoff
        self.harmonics = SphericalHarmonics(config.l_max)
        self.lengths = LengthBasis(config.cutoff, config.num_radial, config.envelope_exponent)
        self.speeds = SpeedBasis(config.max_speed, config.num_speed, num_species)
        self.register_buffer("elements", torch.eye(num_species), persistent=False)
        self.register_buffer("strides", math.sqrt(num_strides) * torch.eye(num_strides), persistent=False)
        irreps = natural_irreps(config.l_max)
        scalars = config.num_speed + (num_strides if num_strides > 1 else 0)
        widths = [num_species + scalars, *[1] * config.l_max]
        self.start = IrrepLinear([Block(ir, width, c) for ir, width in zip(irreps, widths, strict=True)])
        layers = []
        for k in range(config.num_layers):
            last = k == config.num_layers - 1 and not complete
            wanted = [VECTOR] if last else config.feature_irreps()
            layer = TrajCastLayer(config, num_species, scalars, irreps, wanted, fused=fused)
            irreps = layer.outputs
            layers.append(layer)
        self.layers = nn.ModuleList(layers)
        before = sum(ir.dim for ir in irreps if ir < VECTOR)
        self.vector_columns = (before * c, (before + 3) * c)
        self.compression = IrrepLinear([Block(VECTOR, c, c // 4)])
        self.readout = IrrepLinear([Block(VECTOR, c // 4, 2 * num_strides)])
        self.checked = True  # off where the caller looks at the lengths
        self.tabling = False  # while learning, weights of bonds come from tables of some lengths
        self.tabled = False
        self.shortest = 0.0

    def set_stride(self, index: int) -> None:
        """Make this one of the strides from now on."""
        self.stride = index

    def know(self, fastest: Sequence[float]) -> None:
        """Take atoms that are faster than those of the training, ``fastest`` [S] A/fs by element, for as fast as these."""
        self.speeds.known = torch.tensor(fastest, dtype=torch.float64).to(self.speeds.places)

    def features(self, vectors: Tensor, velocities: Tensor, species: Tensor, edge_index: Tensor) -> list[Tensor]:
        """Return the features [N, columns] at the start and [n, columns] of the atoms that this process owns after each layer;
        arguments as for :meth:`forward`."""
        one_hot = self.elements.to(velocities.dtype).index_select(0, species)
        speeds = self.speeds(velocities, one_hot)
        if self.num_strides > 1:
            stride = self.strides.to(speeds.dtype)[self.stride]
            speeds = torch.cat([speeds, stride.expand(speeds.size(0), self.num_strides)], 1)
        along = self.harmonics(velocities)
        own = local_rows(along)
        atoms = torch.arange(own.size(0), device=species.device)
        motion = Motion(
            torch.stack([atoms, atoms]), own, head_rows(speeds, own), head_rows(species, own), head_rows(one_hot, own)
        )
        r, step = torch.linalg.vector_norm(vectors, dim=1), 0.0
        if self.tabled:
            if self.checked:
                refuse_short(r, edge_index, self.shortest)
            basis, r = vectors[:, :0], r.clamp(max=self.cutoff)
        elif not torch.jit.is_scripting() and self.training and self.tabling:
            places, step = knots(r, self.cutoff)
            basis, r = self.lengths(places), r.clamp(max=self.cutoff)
        else:
            basis = self.lengths(r)
        bonds = Bonds(edge_index, r, self.harmonics(vectors), basis, edge_index[0, :0], step)

        x = torch.cat(self.start(torch.cat([one_hot, speeds, along[:, 1:]], 1)), 1)
        out = [x]
        for k, layer in enumerate(self.layers):
            if k > 0:
                x = exchange(x)
            x = layer(x, bonds, motion)
            out.append(x)
        return out

    def forward(self, vectors: Tensor, velocities: Tensor, species: Tensor, edge_index: Tensor) -> Tensor:
        """Return displacement and new velocity [N, 2, 3], each in units of its rms in training, before conservation.

        Parameters
        ----------
        vectors [E, 3]
            r_sender - r_receiver, A.
        velocities [N, 3]
            A/fs.
        species [N], edge_index [2, E]
            Element indices; receiver and sender of each edge, sorted by receiver.

        Raises
        ------
        EquistrideError
            Where an atom is faster than the model covers (a ``RuntimeError`` from TorchScript).
        """
        x = self.features(vectors, velocities, species, edge_index)[-1]
        first, last = self.vector_columns
        compressed = torch.cat(self.compression(x[:, first:last]), 1)
        return pad_to_all(torch.stack(self.readout(compressed), 2).narrow(1, 2 * self.stride, 2), species)

    def bond_weights(self, lengths: Tensor) -> list[Tensor]:
        """Return what multiplies the messages of each layer [K, paths and channels] over bonds of ``lengths`` [K] in A, of a
        network without tables."""
        basis = self.lengths(lengths)
        return [layer.messages.network(basis) for layer in self.layers]  # type: ignore[union-attr,operator]

    def pruned(self) -> "TrajCast":
        """Return a copy whose last layer has only the parameters that the output depends on; outputs are the same."""
        if not self.complete:
            return copy.deepcopy(self)
        out = TrajCast(self.config, self.num_species, num_strides=self.num_strides, fused=self.fused).to(
            self.start.weight
        )
        out.stride = self.stride
        out.speeds.known = self.speeds.known.clone()
        mine = self.state_dict()
        prefix = f"layers.{len(self.layers) - 1}."
        source, target = self.layers[-1], out.layers[-1]
        assert isinstance(source, TrajCastLayer)
        assert isinstance(target, TrajCastLayer)
        state = {k: v for k, v in mine.items() if not k.startswith(prefix)}
        state |= {prefix + k: v for k, v in _prune(source, target).items()}
        out.load_state_dict(state)
        return out

    def with_tables(self, shortest: float = 0.5, tolerance: float = 1e-6) -> "TrajCast":
        """Return a copy for serving, with the networks of the bond lengths replaced by splines.

        Parameters
        ----------
        shortest
            Shortest bond that the tables cover [A]; shorter ones are refused.
        tolerance
            Largest error of a weight, as a share of the largest one of its layer.

        Raises
        ------
        EquistrideError
            Where the tolerance cannot be reached.
        """
        out = copy.deepcopy(self)
        exact = copy.deepcopy(self).double().requires_grad_(False)
        for layer, source in zip(out.layers, exact.layers, strict=True):
            weighted = source.messages
            if not isinstance(weighted, WeightedConvolution):
                raise EquistrideError(
                    "the network has tables already", hint="make them from the network with its own weights"
                )
            weights = nn.Sequential(exact.lengths, weighted.network)
            with torch.enable_grad():
                table = RadialTable.tabulate(weights, shortest, self.cutoff, tolerance=tolerance)
            layer.messages = TabledConvolution(weighted.convolution, table)
            layer.tabled = out.fused  # type: ignore[assignment]
        out.tabled, out.shortest = True, float(shortest)
        return out.to(self.start.weight.dtype)


def _columns_of_paths(source: TensorProductConvolution, target: TensorProductConvolution, channels: int) -> Tensor:
    """Return the weights' columns of ``source`` that ``target``, with some of its paths, has."""

    def paths(convolution: TensorProductConvolution) -> list[tuple[Irrep, int, Irrep]]:
        return [
            (convolution.irreps_in[p.i_in].ir, p.i_sh, convolution.irreps_paths[p.i_out].ir)
            for p in convolution.instructions
        ]

    known = paths(source)
    starts = torch.tensor([known.index(path) for path in paths(target)]) * channels
    return (starts[:, None] + torch.arange(channels)).flatten()


def _prune(source: TrajCastLayer, target: TrajCastLayer) -> dict[str, Tensor]:
    """Return the state of ``target``, a layer that wants fewer outputs than ``source``."""
    channels = source.gate.widths[0]
    state = source.state_dict()
    for key, mine, theirs in (
        ("messages.network", source.messages.convolution, target.messages.convolution),
        ("speed_network", source.conditioning, target.conditioning),
    ):
        name = f"{key}.layers.{len(source.speed_network.layers) - 1}.weight"
        if key == "messages.network":
            name = f"{key}.layers.{len(source.messages.network.layers) - 1}.weight"
        columns = _columns_of_paths(mine, theirs, channels)
        state[name] = state[name].index_select(1, columns.to(state[name].device))
    gates = {ir: k for k, ir in enumerate(ir for ir in source.gate.irreps if ir.l > 0)}
    for name in ("contraction", "update", "residual"):
        mine, theirs = getattr(source, name), getattr(target, name)
        blocks = dict(zip((b.irrep for b in mine.blocks), mine.weight.detach().split(mine.sizes), strict=True))
        kept = []
        for ir, fan_in, fan_out in theirs.blocks:
            weight = blocks[ir].view(fan_in, -1)
            if name == "update" and ir == EVEN:
                parts = list(weight.split(channels, 1))
                wanted = [parts[0]] if target.gate.has_even else []
                wanted += [parts[1 + gates[out]] for out in target.gate.irreps if out.l > 0]
                weight = torch.cat(wanted, 1)
            assert weight.size(1) == fan_out
            kept.append(weight.flatten())
        state[f"{name}.weight"] = torch.cat(kept)
    return state
