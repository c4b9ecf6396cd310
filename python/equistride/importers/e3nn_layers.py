"""Weights of e3nn's layers in the order of ours.

Other programs keep blocks of irreps in an order of their own, several blocks of one irrep, and paths in the order in which
they were made. Our layers have one block an irrep, sorted. Matrices here are complete: the factors of e3nn's normalisation are
in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from e3nn.o3 import Irrep, Irreps, wigner_3j
from torch import Tensor

from equistride.errors import EquistrideError
from equistride.models.nequip import NequIPLayer
from equistride.nn.equivariant import EVEN, Block, IrrepLinear, SpeciesLinear
from equistride.nn.scalar_network import NORMALISED_SILU
from equistride.nn.tensor_product import TensorProductConvolution

Matrices = Mapping[Irrep, Tensor]


def channels(irreps: Irreps) -> dict[Irrep, int]:
    """Return the channels of each irrep, of all its blocks together."""
    found: dict[Irrep, int] = {}
    for mul, ir in irreps:
        found[ir] = found.get(ir, 0) + mul
    return found


def _pieces(flat: Tensor, inputs: Irreps, outputs: Irreps, species: int, name: str) -> dict[Irrep, Tensor]:
    """Return [in, species, out] of each irrep, for weights that lie pair of blocks after pair of blocks."""
    pairs = [(i, k) for i, (_, a) in enumerate(inputs) for k, (_, b) in enumerate(outputs) if a == b]
    sizes = [inputs[i].mul * species * outputs[k].mul for i, k in pairs]
    if flat.numel() != sum(sizes):
        raise EquistrideError(
            f"the weights {name} do not fit the network", expected=f"{sum(sizes)} numbers", found=flat.numel()
        )
    found: dict[tuple[int, int], Tensor] = {}
    for (i, k), part in zip(pairs, flat.double().flatten().split(sizes), strict=True):
        found[i, k] = part.view(inputs[i].mul, species, outputs[k].mul)
    out = {}
    for ir in {inputs[i].ir for i, _ in pairs}:
        rows = [i for i, (_, a) in enumerate(inputs) if a == ir]
        columns = [k for k, (_, b) in enumerate(outputs) if b == ir]
        out[ir] = torch.cat([torch.cat([found[i, k] for k in columns], 2) for i in rows])
    return out


def linear(flat: Tensor, inputs: Irreps, outputs: Irreps, name: str) -> dict[Irrep, Tensor]:
    """Return the matrix [in, out] of each irrep of an ``o3.Linear``."""
    pieces = _pieces(flat, inputs, outputs, 1, name)
    return {ir: part[:, 0] / math.sqrt(part.size(0)) for ir, part in pieces.items()}


def linear_by_species(
    flat: Tensor, inputs: Irreps, outputs: Irreps, attributes: Tensor, name: str
) -> dict[Irrep, Tensor]:
    """Return the matrices [S, in, out] of each irrep of an ``o3.FullyConnectedTensorProduct`` with scalars.

    Parameters
    ----------
    attributes
        [S, V]: the scalars of each element.
    """
    count = attributes.size(1)
    pieces = _pieces(flat, inputs, outputs, count, name)
    return {
        ir: torch.einsum("uvw,sv->suw", part, attributes) / math.sqrt(part.size(0) * count)
        for ir, part in pieces.items()
    }


def with_modal(matrices: Matrices, modals: int, chosen: int) -> tuple[dict[Irrep, Tensor], Tensor]:
    """Take the last inputs, a one-hot choice, out of the scalars' matrix; return the rest and the choice's row."""
    whole = matrices[EVEN]
    return {**matrices, EVEN: whole[:-modals]}, whole[whole.size(0) - modals + chosen]


def gate_input(outputs: Irreps) -> Irreps:
    """Return what e3nn's gate reads to make ``outputs``, in its order: sorted, one block an irrep."""
    gates = Irreps([(mul, EVEN) for mul, ir in outputs if ir.l > 0])
    return (outputs + gates).sort().irreps.simplify()


def gate_columns(outputs: Irreps) -> Tensor:
    """Return the place in e3nn's even scalars of each even scalar that our gate reads: gates follow sorted irreps."""
    scalars = sum(mul for mul, ir in outputs if ir == EVEN)
    starts, at = [], scalars
    for mul, ir in outputs:
        if ir.l > 0:
            starts.append((ir, at, mul))
            at += mul
    places = [torch.arange(scalars), *[torch.arange(a, a + mul) for _, a, mul in sorted(starts, key=lambda s: s[0])]]
    return torch.cat(places)


class _Path(NamedTuple):
    block: int
    harmonic: int
    irrep: Irrep


class Paths:
    """The paths of another program's convolution.

    Parameters
    ----------
    inputs, harmonics
        Irreps, in its order.
    wanted
        Irreps that messages may have.
    sorted_weights
        Weights lie sorted by the output's irrep, not in the order in which paths are made.
    """

    def __init__(self, inputs: Irreps, harmonics: Irreps, wanted: Iterable[Irrep], sorted_weights: bool) -> None:
        kept = set(wanted)
        self.inputs, self.harmonics = inputs, harmonics
        made = [
            _Path(i, j, out)
            for i, (_, ir) in enumerate(inputs) for j, (_, y) in enumerate(harmonics) for out in ir * y if out in kept
        ]  # fmt: skip
        by_output = sorted(made, key=lambda path: path.irrep)  # stable
        self.irreps = Irreps([(inputs[path.block].mul, path.irrep) for path in by_output]).simplify()
        self.column: dict[_Path, int] = {}
        self.row: dict[_Path, int] = {}
        at = 0
        for path in by_output if sorted_weights else made:
            self.column[path] = at
            at += inputs[path.block].mul
        self.weights = at
        filled: dict[Irrep, int] = {}
        for path in by_output:
            self.row[path] = filled.get(path.irrep, 0)
            filled[path.irrep] = self.row[path] + inputs[path.block].mul

    def _ours(self, convolution: TensorProductConvolution) -> list[_Path]:
        """Return the paths in the order of our convolution."""
        out = []
        for path in convolution.instructions:
            source, target = convolution.irreps_in[path.i_in].ir, convolution.irreps_paths[path.i_out].ir
            out += [_Path(i, path.i_sh, target) for i, (_, ir) in enumerate(self.inputs) if ir == source]
        return out

    def columns(
        self, convolution: TensorProductConvolution, sign: Callable[[int, int, int], float]
    ) -> tuple[Tensor, Tensor]:
        """Return the column of each of our weights, and its sign, by the degrees of the path."""
        columns, signs = [], []
        for path in self._ours(convolution):
            mul, ir = self.inputs[path.block]
            columns.append(torch.arange(mul) + self.column[path])
            flip = sign(ir.l, self.harmonics[path.harmonic].ir.l, path.irrep.l)
            signs.append(torch.full((mul,), flip, dtype=torch.float64))
        return torch.cat(columns), torch.cat(signs)

    def rows(self, convolution: TensorProductConvolution, irrep: Irrep) -> Tensor:
        """Return the place of each channel of our messages of an irrep."""
        return torch.cat([
            torch.arange(self.inputs[path.block].mul) + self.row[path] for path in self._ours(convolution) if path.irrep == irrep
        ])  # fmt: skip


def stored_sign(
    state: Mapping[str, Tensor], convolution: str, *, old: bool, needed: bool = False
) -> Callable[[int, int, int], float]:
    """Return, by degrees, the sign of a convolution's 3j symbols against ours.

    e3nn before 0.5 has the opposite sign where one degree is 1 and the others are equal and above 1.

    Parameters
    ----------
    state, convolution
        State dict, and the name in it of the ``o3.TensorProduct`` that may have its symbols.
    old
        Written by such an e3nn, which decides where symbols are not stored.
    needed
        Refuse a file that does not store them.

    Raises
    ------
    EquistrideError
        By the function returned, where symbols are neither, or are needed and not there.
    """

    def of(a: int, b: int, c: int) -> float:
        stored = state.get(f"{convolution}._compiled_main_left_right._w3j_{a}_{b}_{c}")
        low, middle, high = sorted((a, b, c))
        if stored is None and needed and low > 0:
            raise EquistrideError(
                "the checkpoint has no 3j symbols, whose signs early versions chose otherwise",
                expected=f"_w3j_{a}_{b}_{c} in the state dict",
            )
        if stored is None:
            return -1.0 if old and low == 1 and middle == high > 1 else 1.0
        ours = wigner_3j(a, b, c, dtype=torch.float64)
        for found in (1.0, -1.0):
            if stored.shape == ours.shape and bool(((stored.double() - found * ours).abs() < 1e-5).all()):
                return found
        raise EquistrideError("the checkpoint's 3j symbols are not those of e3nn", expected=f"({a}, {b}, {c})")

    return of


def _flat(blocks: Sequence[Block], matrices: Matrices) -> Tensor:
    return torch.cat([(matrices[ir] * math.sqrt(fan_in)).flatten(-2) for ir, fan_in, _ in blocks], -1)


def put(state: dict[str, Tensor], name: str, target: IrrepLinear | SpeciesLinear, matrices: Matrices) -> None:
    """Put matrices, of each element or of all, in the form of our layer's weights."""
    state[f"{name}.weight"] = _flat(target.blocks, matrices)


def put_layer(
    state: dict[str, Tensor], name: str, layer: NequIPLayer, *, outputs: Irreps, paths: Paths, up: Matrices, down: Matrices,
    own: Matrices, radial: Sequence[Tensor], sign: Callable[[int, int, int], float], biases: tuple[Tensor, Tensor] | None,
) -> None:  # fmt: skip
    """Put another program's layer in the form of ours.

    Parameters
    ----------
    state, name, layer
        Where it goes; the layer's name there; the layer.
    outputs
        Of the gate, in its order.
    paths
        Of its convolution.
    up, down, own
        Matrices of its linear maps before and after the convolution, and of the self-connection (none: empty).
    radial
        Weights [in, out] of the radial network in our normalisation, columns in its order.
    sign
        That of its 3j symbols against ours, by degrees.
    biases
        Of the even scalars before and after the convolution.
    """
    gates = gate_columns(outputs)

    def of_gate(matrices: Matrices) -> dict[Irrep, Tensor]:
        return {ir: part[..., gates] if ir == EVEN else part for ir, part in matrices.items()}

    put(state, f"{name}.up", layer.up, up)
    received = {ir: part[paths.rows(layer.messages.convolution, ir)] for ir, part in of_gate(down).items()}
    put(state, f"{name}.down", layer.down, {ir: part * layer.divisor for ir, part in received.items()})
    if layer.linear is not None:
        put(state, f"{name}.linear", layer.linear, of_gate(own))
    if layer.by_species is not None:
        put(state, f"{name}.by_species", layer.by_species, of_gate(own))
    if biases is not None:
        state[f"{name}.up.bias"], state[f"{name}.down.bias"] = biases[0], biases[1][gates]
    columns, signs = paths.columns(layer.messages.convolution, sign)
    if radial[-1].size(1) != paths.weights:
        raise EquistrideError(
            f"the weights of the convolution {name} do not fit the network", expected=f"{paths.weights} columns",
            found=radial[-1].size(1),
        )  # fmt: skip
    for k, weight in enumerate([*radial[:-1], radial[-1][:, columns] * signs]):
        state[f"{name}.messages.network.layers.{k}.weight"] = weight


def plain_silu(weights: Sequence[Tensor], gain: float) -> list[Tensor]:
    """Return layers with plain SiLU between and ``gain`` from the second on as layers with normalised SiLU between."""
    return [w.double() * (gain / NORMALISED_SILU if k else 1.0) for k, w in enumerate(weights)]
