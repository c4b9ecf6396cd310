"""Weights of a file of MACE in the form of our network's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from e3nn.o3 import Irreps
from torch import Tensor

from equistride.importers.e3nn_layers import Paths, linear, linear_by_species, put
from equistride.importers.mace_file import MACEFile
from equistride.importers.mace_file import refuse_model_unless as refuse_unless
from equistride.importers.mace_network import NUMBERS, Described
from equistride.models.mace import MACE
from equistride.models.mace_layer import MACELayer, Messages, SumsByNumber, SumsWithGate
from equistride.nn.equivariant import EVEN, natural_irreps, with_channels
from equistride.nn.symmetric_contraction import SymmetricContraction

State = dict[str, Tensor]


def _sign(_: int, harmonic: int, __: int) -> float:
    return (-1.0) ** harmonic  # bonds point from the sender to the receiver there


class Weights:
    """Reads weights for one network.

    Parameters
    ----------
    file, described
        Where they are, and what network it is.
    kept
        Places of the elements to keep.
    head, heads
        Which set of labels, of how many.
    scale
        Energy of one unit of the network's output [eV].
    """

    def __init__(
        self, file: MACEFile, described: Described, kept: Sequence[int], head: int, heads: int, scale: float
    ) -> None:
        self.file, self.described, self.config = file, described, described.config
        self.kept, self.head, self.heads, self.scale = list(kept), head, heads, scale
        self.elements = file.tensor("atomic_numbers").numel()
        self.one_hot = torch.eye(self.elements, dtype=torch.float64)[self.kept]

    def irreps(self, degree: int) -> Irreps:
        """Return the irreps of features up to a degree."""
        return with_channels(natural_irreps(degree), self.config.channels)

    def of_elements(self, name: str) -> Tensor:
        """Return the image [kept, channels] of each element under a linear map."""
        return self.file.tensor(f"{name}.weight").view(self.elements, -1)[self.kept] / math.sqrt(self.elements)

    def state(self, network: MACE) -> State:
        """Return all weights of ``network``."""
        config = self.config
        frequencies = self.file.tensor("radial_embedding.bessel_fn.bessel_weights").flatten() * config.cutoff
        state = {
            "embedding.weight": self.of_elements("node_embedding.linear"),
            "radial.basis.frequencies": frequencies,
        }
        for t, layer in enumerate(network.layers):
            assert isinstance(layer, MACELayer)
            self._layer(state, t, layer)
        self._readouts(state)
        self._system(state)
        return state

    def _layer(self, state: State, t: int, layer: MACELayer) -> None:
        """Put the weights of a layer."""
        assert isinstance(layer.messages, Messages)
        assert isinstance(layer.product, SymmetricContraction)
        config, theirs, ours = self.config, f"interactions.{t}", f"layers.{t}"
        inputs, sent, summed = self.irreps(config.degrees[t]), self.described.sent[t], self.irreps(config.l_max)
        outputs = self.irreps(self.described.last if t == config.num_layers - 1 else config.degrees[t + 1])
        paths = Paths(sent, config.harmonics, [ir for _, ir in summed], sorted_weights=True)
        convolution = layer.messages.convolution
        columns, signs = paths.columns(convolution, _sign)

        def read(name: str, a: Irreps, b: Irreps, part: str = theirs) -> dict[Any, Tensor]:
            return linear(self.file.tensor(f"{part}.{name}.weight"), a, b, f"{part}.{name}")

        put(state, f"{ours}.up", layer.up, read("linear_up", inputs, sent))
        if isinstance(layer, SumsWithGate):
            gated = self.irreps(config.l_max) + Irreps([(config.channels * config.l_max, EVEN)])
            gated = gated.sort().irreps.simplify()
            down = read("linear_1", paths.irreps, gated)
            put(state, f"{ours}.itself", layer.itself, read("linear_res", sent, gated))
            put(state, f"{ours}.gated", layer.gated, read("linear_2", summed, summed))
            put(state, f"{ours}.own_linear", layer.own_linear, read("skip_tp", inputs, outputs))
            state |= {f"{ours}.{name}": self.file.tensor(f"{theirs}.{name}") for name in ("alpha", "beta")}
            self._pair_network(
                state, f"{ours}.messages.weights.weights", f"{theirs}.conv_tp_weights", t, columns, signs
            )
            self._pair_network(state, f"{ours}.density.weights", f"{theirs}.density_fn", t)
        else:
            assert isinstance(layer, SumsByNumber)
            number = 1.0 if layer.density is not None else config.avg_num_neighbors[t]
            down = {ir: part * layer.divisor / number for ir, part in read("linear", paths.irreps, summed).items()}
            source, target = (inputs, outputs) if layer.residual else (summed, summed)
            flat = self.file.tensor(f"{theirs}.skip_tp.weight")
            put(
                state,
                f"{ours}.own_linear",
                layer.own_linear,
                linear_by_species(flat, source, target, self.one_hot, theirs),
            )
            radial = self.file.stack(f"{theirs}.conv_tp_weights")
            refuse_unless(
                radial[-1].size(1) == paths.weights, "radial weights that do not fit", paths.weights, radial[-1].size(1)
            )
            for k, weight in enumerate([*radial[:-1], radial[-1][:, columns] * signs]):
                state[f"{ours}.messages.weights.weights.network.layers.{k}.weight"] = weight
            if layer.density is not None:
                density = self.file.tensor(f"{theirs}.density_fn.layer0.weight")
                state[f"{ours}.density.weights.network.layers.0.weight"] = density
        put(state, f"{ours}.down", layer.down, {ir: part[paths.rows(convolution, ir)] for ir, part in down.items()})
        put(state, f"{ours}.mix", layer.mix, read("linear", outputs, outputs, f"products.{t}"))
        state |= {f"{ours}.product.{name}": table for name, table in layer.product.named_buffers()}
        # paths without a product are in the file and count nothing
        state[f"{ours}.product.weight"] = torch.cat(
            [
                weight if config.agnostic else weight[self.kept]
                for key, weight in self.described.weights[t].items()
                if weight.size(1) == layer.product.paths_of.get(key, 0)
            ],
            1,
        )

    def _pair_network(
        self, state: State, ours: str, theirs: str, t: int, columns: Tensor | None = None, signs: Tensor | None = None
    ) -> None:
        """Put a network of functions and elements; what the elements add to its first layer is multiplied out."""
        numbers = self.file.sequence(theirs)
        first = self.file.tensor(f"{theirs}.net.0.weight")
        sizes = [self.config.num_basis, self.config.channels, self.config.channels]
        refuse_unless(first.size(1) == sum(sizes), f"a network of other inputs ({theirs})", sum(sizes), first.size(1))
        of_functions, of_sender, of_receiver = first.split(sizes, 1)
        name = f"{ours}.of_elements"
        state[f"{name}.first.weight"] = of_functions
        state[f"{name}.first.bias"] = self.file.tensor(f"{theirs}.net.0.bias")
        for role, weight, part in (("sender", of_sender, "source"), ("receiver", of_receiver, "target")):
            state[f"{name}.{role}"] = self.of_elements(f"interactions.{t}.{part}_embedding") @ weight.t()
        for k, number in enumerate(numbers[1:]):
            for part in ("weight", "bias"):
                state[f"{name}.norms.{k}.{part}"] = self.file.tensor(f"{theirs}.net.{number - 2}.{part}")
                value = self.file.tensor(f"{theirs}.net.{number}.{part}")
                if k == len(numbers) - 2 and columns is not None and signs is not None:
                    value = value[columns] * (signs[:, None] if part == "weight" else signs)
                state[f"{name}.layers.{k}.{part}"] = value

    def _readouts(self, state: State) -> None:
        """Put what reads the layers; of the hidden layers, the part of the head alone is alive."""
        config, heads, head = self.config, self.heads, self.head
        layers, channels, width = config.num_layers, config.channels, config.readout_widths[0]
        if config.readouts == "all":
            for t in range(layers - 1):
                flat, name = self.file.tensor(f"readouts.{t}.linear.weight"), f"readouts.{t}"
                read_out = linear(flat, self.irreps(0), Irreps([(heads, "0e")]), name)[EVEN]
                state[f"{name}.layers.0.weight"] = read_out[:, [head]] * math.sqrt(channels)
        theirs = f"readouts.{len(self.file.parts('readouts')) - 1}"
        mine, ours = slice(head * width, (head + 1) * width), f"readouts.{layers - 1}.layers"
        state[f"{ours}.0.weight"] = self.file.tensor(f"{theirs}.linear_1.weight").view(channels, heads * width)[:, mine]
        last = len(config.readout_widths)
        if config.readout_bias:
            between = self.file.tensor(f"{theirs}.linear_mid.weight").view(heads * width, heads * width)
            state[f"{ours}.1.weight"] = between[mine, mine] / math.sqrt(heads)
            state[f"{ours}.1.bias"] = self.file.tensor(f"{theirs}.linear_mid.bias")[mine]
            state[f"{ours}.{last}.bias"] = self.file.tensor(f"{theirs}.linear_2.bias")[[head]]
        second = self.file.tensor(f"{theirs}.linear_2.weight").view(heads * width, heads)
        state[f"{ours}.{last}.weight"] = second[mine, [head]].view(width, 1) / math.sqrt(heads)
        if config.start_readout:  # in eV there
            start = self.file.tensor("embedding_readout.linear.weight").view(channels, heads)[:, [head]]
            state["start_readout.layers.0.weight"] = start / self.scale

    def _system(self, state: State) -> None:
        """Put the embeddings of charge and spin."""
        if not self.config.features:
            return
        names, parts = {ours: theirs for theirs, ours in NUMBERS.items()}, {}
        widths = [feature.width for feature in self.config.features]
        mix = self.file.tensor("joint_embedding.project.0.weight")
        for feature, columns in zip(self.config.features, mix.split(widths, 1), strict=True):
            theirs, ours = f"joint_embedding.embedders.{names[feature.name]}", f"system.of_{feature.name}"
            parts[feature.name] = columns
            if feature.classes:
                state[f"{ours}.table.weight"] = self.file.tensor(f"{theirs}.weight")
                continue
            for number, name in (("0", "first"), ("2", "second")):
                for part in ("weight", "bias") if feature.bias else ("weight",):
                    state[f"{ours}.{name}.{part}"] = self.file.tensor(f"{theirs}.{number}.{part}")
        state["system.mix.weight"] = torch.cat([parts[name] for name in sorted(parts)], 1)
