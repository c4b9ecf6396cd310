"""The convolution of equivariant message passing: channel-wise ('uvu') tensor product, summed over edges.

For every path p = (block of x with degree l1, harmonic of degree l2, block of the output with degree l3)::

    out_p[t, m3, u] = sum over edges t <- s of
        weights[e, p, u] sum_{m1 m2} C_p[m1, m2, m3] x[s, m1, u] y[e, m2]

with C_p the Wigner 3j symbols times sqrt(2 l3 + 1): e3nn's ``o3.TensorProduct`` with ``'uvu'`` instructions
and its default normalisations (Geiger and Smidt, arXiv 2207.09453). The fused operator never stores a
message; the plain version does.

Features are stored with channels innermost: a block of ``mul`` copies of an irrep of degree l takes
``(2 l + 1) * mul`` columns, row m after row m. e3nn stores ``(mul, 2 l + 1)``; `channels_last` and
`channels_first` convert. In the output all paths to one irrep form one block, so that row m of it is a matrix
[N, all channels] with no gaps inside.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from e3nn.o3 import Irrep, Irreps, wigner_3j
from torch import Tensor, nn

import equistride._library  # noqa: F401  (loads torch.ops.equistride)
from equistride.errors import EquistrideError
from equistride.nn.radial_table import RadialTable

__all__ = [
    "Instruction",
    "TabulatedConvolution",
    "TensorProductConvolution",
    "all_instructions",
    "channels_first",
    "channels_last",
    "tensor_product_reference",
]

MAX_DEGREE = 4


class Instruction(NamedTuple):
    """One path: blocks of x, of the harmonics and of the output, and its share of the output's variance."""

    i_in: int
    i_sh: int
    i_out: int
    path_weight: float = 1.0


def channels_last(features: Tensor, irreps: Irreps | str) -> Tensor:
    """Reorder e3nn's columns, ``(mul, 2 l + 1)`` a block, to ours, ``(2 l + 1, mul)``; [..., irreps.dim]."""
    return _swap(features, [(mul, ir.dim) for mul, ir in Irreps(irreps)])


def channels_first(features: Tensor, irreps: Irreps | str) -> Tensor:
    """Undo `channels_last`."""
    return _swap(features, [(ir.dim, mul) for mul, ir in Irreps(irreps)])


def _swap(features: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
    blocks = zip(features.split([a * b for a, b in shapes], -1), shapes, strict=True)
    return torch.cat([x.unflatten(-1, shape).transpose(-1, -2).flatten(-2) for x, shape in blocks], -1)


def all_instructions(
    irreps_in: Irreps | str, irreps_sh: Irreps | str, keep: Irreps | str | None = None
) -> tuple[Irreps, list[Instruction]]:
    """Return every path from `irreps_in` and `irreps_sh` to an irrep in `keep`, sorted by output irrep.

    Parameters
    ----------
    irreps_in, irreps_sh
        Irreps of the features and of the harmonics (multiplicity 1 each).
    keep
        Irreps that the output may have; without it, all up to the largest degree that goes in.

    Returns
    -------
    irreps_out, instructions
        One block a path, sorted (0o, 0e, 1o, ...); ties keep the order (block of x, harmonic, degree), as
        TrajCast has them.
    """
    irreps_in, irreps_sh = Irreps(irreps_in), Irreps(irreps_sh)
    lmax = max([ir.l for _, ir in irreps_in] + [ir.l for _, ir in irreps_sh])
    kept = None if keep is None else {ir for _, ir in Irreps(keep)}
    blocks: list[tuple[int, Irrep]] = []
    paths: list[Instruction] = []
    for i, (mul, ir_in) in enumerate(irreps_in):
        for j, (_, ir_sh) in enumerate(irreps_sh):
            for ir_out in ir_in * ir_sh:
                if (ir_out.l <= lmax) if kept is None else (ir_out in kept):
                    paths.append(Instruction(i, j, len(blocks)))
                    blocks.append((mul, ir_out))
    if not paths:
        raise EquistrideError(
            "no path leads from the features to the output",
            expected=f"an irrep of {irreps_in} x {irreps_sh}",
            found=keep,
            hint="keep an irrep that the product contains",
        )
    irreps_out, place, _ = Irreps(blocks).sort()
    return irreps_out, sorted((p._replace(i_out=place[p.i_out]) for p in paths), key=lambda p: p.i_out)


def _merged(irreps_out: Irreps) -> tuple[Irreps, list[tuple[int, int]]]:
    """Join neighbouring blocks of one irrep; return each old block's first column and its row stride."""
    joined = irreps_out.simplify()
    places, group, before = [], 0, 0
    slices = joined.slices()
    for mul, _ in irreps_out:
        if mul == 0:
            raise EquistrideError(
                "an irrep has no channels",
                expected="multiplicities above 0",
                found=str(irreps_out),
                hint="leave it out",
            )
        if before == joined[group].mul:
            group, before = group + 1, 0
        places.append((slices[group].start + before, joined[group].mul))
        before += mul
    return joined, places


def _compile(
    irreps_in: Irreps, irreps_sh: Irreps, irreps_out: Irreps, instructions: Sequence[Instruction]
) -> tuple[list[int], list[float], Irreps]:
    """Return the operators' `paths` and `couplings`, and the irreps of their output."""
    joined, places = _merged(irreps_out)
    starts_in, starts_sh = ([s.start for s in irreps.slices()] for irreps in (irreps_in, irreps_sh))
    if {p.i_out for p in instructions} != set(range(len(irreps_out))):
        raise EquistrideError(
            "a block of the output has no path, or a path has no block",
            expected=f"a path to each of {len(irreps_out)} blocks",
            found=sorted({p.i_out for p in instructions}),
            hint="leave blocks without a path out of irreps_out",
        )
    paths: list[int] = []
    couplings: list[float] = []
    known: dict[tuple[int, int, int, float], int] = {}
    weights = 0
    for i_in, i_sh, i_out, path_weight in instructions:
        (mul, a), (mul_sh, b), (mul_out, c) = irreps_in[i_in], irreps_sh[i_sh], irreps_out[i_out]
        if c not in a * b or mul_sh != 1 or mul_out != mul or max(a.l, b.l, c.l) > MAX_DEGREE:
            raise EquistrideError(
                "an instruction is not a 'uvu' path",
                expected=f"harmonics with multiplicity 1, an output with that of x, degrees to {MAX_DEGREE}",
                found=f"{mul}x{a} x {mul_sh}x{b} -> {mul_out}x{c}",
                hint="make the instructions with all_instructions",
            )
        sharing = sum(other.i_out == i_out for other in instructions)
        key = (a.l, b.l, c.l, math.sqrt(path_weight * c.dim / sharing))
        if key not in known:
            known[key] = len(couplings)
            symbols = wigner_3j(a.l, b.l, c.l, dtype=torch.float64, device="cpu")
            symbols = torch.where(symbols.abs() > 1e-12, symbols, 0.0) * key[3]
            couplings += symbols.flatten().tolist()
        start, stride = places[i_out]
        paths += [a.l, b.l, c.l, mul, starts_in[i_in], starts_sh[i_sh], weights, start, stride, known[key]]
        weights += mul
    return paths, couplings, joined


def tensor_product_reference(
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    edge_index: Tensor,
    paths: list[int],
    couplings: list[float],
    num_receivers: int,
) -> Tensor:
    """Do what ``torch.ops.equistride.tensor_product`` does, path by path in plain torch.

    Parameters
    ----------
    x [N, columns], y [E, columns], weights [E, columns]
        Features of the senders, harmonics and weights of the edges.
    edge_index [2, E]
        Receivers and senders, in any order.
    paths, couplings
        Ten integers a path (degrees l1 l2 l3, channels, first columns in x, y, weights and output, columns
        from one m3 to the next in the output, first of its coefficients) and the coefficients.
    num_receivers
        Rows of the output.
    """
    width = 0
    for start in range(0, len(paths), 10):
        width = max(width, paths[start + 7] + 2 * paths[start + 2] * paths[start + 8] + paths[start + 3])
    coefficients = torch.empty(len(couplings), dtype=x.dtype)
    for k, value in enumerate(couplings):  # TorchScript's torch.tensor would round them to float32
        coefficients[k].fill_(value)
    coefficients = coefficients.to(x.device)
    columns = torch.arange(width, device=x.device)
    out = x.new_zeros([num_receivers, width])
    sent = x.index_select(0, edge_index[1])
    for start in range(0, len(paths), 10):
        d1, d2, d3 = 2 * paths[start] + 1, 2 * paths[start + 1] + 1, 2 * paths[start + 2] + 1
        channels, at_x, at_y, at_w, at_out, stride, at_c = paths[start + 3 : start + 10]
        c = coefficients[at_c : at_c + d1 * d2 * d3].reshape(d1, d2, d3)
        m = torch.einsum("ej,ijk->eik", y[:, at_y : at_y + d2], c)
        block = sent[:, at_x : at_x + d1 * channels].reshape(-1, d1, channels)
        block = block * weights[:, None, at_w : at_w + channels]
        message = torch.einsum("eiu,eik->eku", block, m).flatten(1)
        place = torch.cat([columns[at_out + k * stride : at_out + k * stride + channels] for k in range(d3)])
        summed = x.new_zeros([num_receivers, d3 * channels]).index_add(0, edge_index[0], message)
        out = out.index_add(1, place, summed)
    return out


class TensorProductConvolution(nn.Module):
    """Message passing with the channel-wise tensor product.

    Parameters
    ----------
    irreps_in
        Irreps of the senders' features, e.g. ``"64x0e + 64x1o + 64x2e"``; multiplicities may differ.
    irreps_sh
        Irreps of the harmonics, each with multiplicity 1, degrees up to 4.
    irreps_out, instructions
        Blocks of the output and paths to them (e3nn's ``(i_in1, i_in2, i_out)`` or `Instruction`). Several
        paths may share a block. Without instructions, `all_instructions` makes them and `irreps_out` says
        which irreps to keep.
    fused
        Use the native operator, or the plain torch version.

    Attributes
    ----------
    irreps_out
        Irreps of the output: neighbouring blocks of one irrep are one block.
    irreps_paths
        Irreps with one block a path, as e3nn has them.
    weight_numel
        Weights an edge needs: one a path and channel, in the order of the instructions (e3nn's order).
    """

    def __init__(
        self,
        irreps_in: Irreps | str,
        irreps_sh: Irreps | str,
        irreps_out: Irreps | str | None = None,
        instructions: Sequence[Sequence[float]] | None = None,
        *,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_sh = Irreps(irreps_in), Irreps(irreps_sh)
        if instructions is None:
            self.irreps_paths, paths = all_instructions(self.irreps_in, self.irreps_sh, irreps_out)
        elif irreps_out is None:
            raise EquistrideError(
                "instructions and irreps_out must be given together",
                expected="both or neither",
                found=None,
                hint="give irreps_out too",
            )
        else:
            self.irreps_paths = Irreps(irreps_out)
            paths = [Instruction(int(p[0]), int(p[1]), int(p[2]), *map(float, p[3:])) for p in instructions]
        self.instructions = tuple(paths)
        self.paths, self.couplings, self.irreps_out = _compile(self.irreps_in, self.irreps_sh, self.irreps_paths, paths)
        self.weight_numel = sum(self.irreps_in[p.i_in].mul for p in paths)
        self.width = self.irreps_out.dim
        self.fused = fused

    def forward(
        self, x: Tensor, y: Tensor, weights: Tensor, edge_index: Tensor, num_receivers: int | None = None
    ) -> Tensor:
        """Return the summed messages [num_receivers, irreps_out.dim].

        Parameters
        ----------
        x [N, irreps_in.dim]
            Features, channels innermost, float32 or float64.
        y [E, irreps_sh.dim], weights [E, weight_numel]
            Harmonics and weights of the edges, of the same type.
        edge_index [2, E]
            Receivers and senders, int64, sorted by receiver.
        num_receivers
            Rows of the output; without it, N.

        Raises
        ------
        ValueError, TypeError, IndexError
            Where shapes or types do not fit, edges are not sorted, or an edge names an atom that is not
            there.
        """
        receivers = x.size(0) if num_receivers is None else num_receivers
        if self.fused:
            return torch.ops.equistride.tensor_product(x, y, weights, edge_index, self.paths, self.couplings, receivers)
        return tensor_product_reference(x, y, weights, edge_index, self.paths, self.couplings, receivers)

    def extra_repr(self) -> str:
        """Say what goes in and out."""
        irreps = f"{self.irreps_in} x {self.irreps_sh} -> {self.irreps_out}"
        return f"{irreps}, {len(self.instructions)} paths, fused={self.fused}"


class TabulatedConvolution(nn.Module):
    """A convolution whose weights come from a radial table inside the operator: they are never stored.

    First gradients only: to x, y and lengths, and on a CPU to the coefficients of the table where they want one.
    """

    def __init__(self, convolution: TensorProductConvolution, table: RadialTable) -> None:
        super().__init__()
        if table.coefficients.size(1) != convolution.weight_numel:
            raise EquistrideError(
                "the table does not fit the convolution",
                expected=f"{convolution.weight_numel} columns",
                found=table.coefficients.size(1),
                hint="tabulate the radial network of this layer",
            )
        self.table, self.fused = table, convolution.fused
        self.paths, self.couplings = convolution.paths, convolution.couplings
        self.start, self.step, self.width = table.start, table.step, convolution.width

    def forward(
        self, x: Tensor, y: Tensor, lengths: Tensor, edge_index: Tensor, num_receivers: int | None = None
    ) -> Tensor:
        """Return the summed messages; `lengths` [E] in A, the rest as for `TensorProductConvolution`.

        Raises
        ------
        ValueError
            Also where a length lies outside the table.
        """
        receivers = x.size(0) if num_receivers is None else num_receivers
        if self.fused:
            return torch.ops.equistride.tensor_product_table(
                x,
                y,
                self.table.place(lengths),
                self.table.coefficients,
                self.start,
                self.step,
                edge_index,
                self.paths,
                self.couplings,
                receivers,
            )
        return tensor_product_reference(x, y, self.table(lengths), edge_index, self.paths, self.couplings, receivers)
