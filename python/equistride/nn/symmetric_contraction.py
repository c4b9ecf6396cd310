"""The product basis of MACE (Batatia et al., arXiv 2206.07697): symmetric powers of an atom's features, channel by channel.

With a = x[i, :, c], the (l_max + 1)^2 numbers of one channel, degree after degree and m = -l .. l::

    out[i, o, c] = sum over terms t of o of table[z_i, t, c] * (product of up to four numbers of a)

The sums over coupled products with their weights, as MACE writes them, are multiplied out once: products that differ in
the order of their factors alone are one monomial, and the weights of an element become one table. That is exact, and there
are few monomials: 94 for a scalar of l_max 3 and three factors.
"""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from e3nn.o3 import wigner_3j
from torch import Tensor, nn

import equistride._library  # noqa: F401  (loads torch.ops.equistride)
from equistride.errors import EquistrideError

__all__ = ["SymmetricContraction", "TabulatedContraction", "symmetric_contraction_reference"]

MAX_FACTORS = 4
SMALL = 1e-10
"""Coefficients below this share of the largest are rounding, and no term."""

INDEPENDENT = 1e-6
"""Singular values of coupled products are 0.01 and more, or rounding."""

Block = dict[tuple[int, ...], Tensor]
"""Coefficients [paths, 2 L + 1] of each monomial, named by its sorted factors."""


Bases = Mapping[tuple[int, int], Block]
"""Coupled products for each degree of the output and number of factors."""


def symmetric_contraction_reference(x: Tensor, table: Tensor, species: Tensor, terms: Tensor, outputs: int) -> Tensor:
    """Do what ``torch.ops.equistride.symmetric_contraction`` does, term by term in plain torch.

    Parameters
    ----------
    x [N, rows * C]
        Features, channels innermost.
    table [S, K, C]
        Coefficients of each element.
    species [N]
        int64.
    terms [T, 6]
        int32: row of the output, row of the table (-1: no term), up to four rows of x (-1 after the last).
    outputs
        Rows of the output.

    Returns
    -------
    Tensor [N, outputs * C]
    """
    channels, there = table.size(2), terms[:, 1] >= 0
    weights = table.index_select(0, species).index_select(1, terms[:, 1].clamp(min=0))
    rows = x.view(x.size(0), -1, channels)
    rows = torch.cat([rows, rows.new_ones(x.size(0), 1, channels)], 1)  # what a missing factor reads
    product = weights * there.to(x.dtype)[:, None]
    for k in range(2, terms.size(1)):
        factor = torch.where(terms[:, k] >= 0, terms[:, k], rows.size(1) - 1)
        product = product * rows.index_select(1, factor)
    out = x.new_zeros(x.size(0), outputs, channels).index_add(1, terms[:, 0], product)
    return out.flatten(1)


def _orthonormal(candidates: Tensor) -> Tensor:
    """Return an orthonormal basis [rank, 2 L + 1, monomials] of what the candidates span."""
    _, sizes, basis = torch.linalg.svd(candidates.flatten(1), full_matrices=False)
    return basis[: int((sizes > INDEPENDENT).sum())].unflatten(1, candidates.shape[1:])


def _couple(l_max: int, largest: int, factors: int) -> dict[tuple[int, ...], dict[int, Tensor]]:
    """Couple symmetric products of `factors` numbers.

    Returns
    -------
    dict
        For the degrees of the factors, sorted, and each degree L up to `largest`: [paths, 2 L + 1, monomials], the
        monomials as `_monomials` orders them.
    """
    if factors == 1:
        return {(d,): {d: torch.eye(2 * d + 1, dtype=torch.float64)[None]} for d in range(l_max + 1)}
    made: dict[tuple[int, ...], dict[int, Tensor]] = {}
    fewer = _couple(l_max, largest + l_max, factors - 1)
    for degrees in itertools.combinations_with_replacement(range(l_max + 1), factors):
        place = {monomial: k for k, monomial in enumerate(_monomials(degrees))}
        candidates = defaultdict(list)
        for degree in sorted(set(degrees)):
            rest = list(degrees)
            rest.remove(degree)
            columns = torch.tensor(
                [
                    place[tuple(sorted((*monomial, degree * degree + m)))]
                    for monomial in _monomials(tuple(rest))
                    for m in range(2 * degree + 1)
                ]
            )
            for inner, paths in fewer[tuple(rest)].items():
                for outer in range(abs(inner - degree), min(inner + degree, largest) + 1):
                    symbols = wigner_3j(inner, degree, outer, dtype=torch.float64, device="cpu")
                    product = torch.einsum("kar,abm->kmrb", paths, symbols).flatten(2)
                    empty = product.new_zeros(*product.shape[:2], len(place))
                    candidates[outer].append(empty.index_add(2, columns, product))
        made[degrees] = {}
        for outer, found in candidates.items():
            basis = _orthonormal(torch.cat(found))
            if basis.size(0) > 0:
                made[degrees][outer] = basis
    return made


def _monomials(degrees: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the distinct products of one number of each degree, by their sorted rows."""
    rows = [range(d * d, (d + 1) ** 2) for d in degrees]
    return sorted({tuple(sorted(choice)) for choice in itertools.product(*rows)})


def coupled_basis(l_max: int, degree: int, factors: int) -> Block:
    """Return all symmetric products of `factors` numbers that turn as a harmonic of `degree`, with its parity.

    Returns
    -------
    dict
        Coefficients [paths, 2 degree + 1], float64, of each monomial.
    """
    blocks = [
        (degrees, paths[degree])
        for degrees, paths in _couple(l_max, degree, factors).items()
        if degree in paths and sum(degrees) % 2 == degree % 2
    ]
    total, start = sum(paths.size(0) for _, paths in blocks), 0
    basis: Block = {}
    for degrees, paths in blocks:
        for k, monomial in enumerate(_monomials(degrees)):
            if paths[:, :, k].abs().max() > SMALL:
                basis[monomial] = paths.new_zeros(total, 2 * degree + 1)
                basis[monomial][start : start + paths.size(0)] = paths[:, :, k]
        start += paths.size(0)
    return basis


def symmetrised(u: Tensor) -> Block:
    """Return MACE's U as coefficients of monomials: what differs in the order of factors alone is summed.

    Parameters
    ----------
    u [2 L + 1, I, ..., I, K]
        A basis of coupled products, as MACE's files hold it (with the first axis also for L = 0).
    """
    basis: dict[tuple[int, ...], Tensor] = {}
    for place in u.abs().amax(dim=(0, -1)).nonzero().tolist():
        monomial, coefficients = tuple(sorted(place)), u[(slice(None), *place)].t().double()
        basis[monomial] = basis[monomial] + coefficients if monomial in basis else coefficients
    largest = max((float(c.abs().max()) for c in basis.values()), default=0.0)
    return {m: c for m, c in sorted(basis.items()) if float(c.abs().max()) > SMALL * largest}


class TabulatedContraction(nn.Module):
    """A product basis with the coefficients of each element written out; frozen where it comes from `frozen`."""

    terms: Tensor
    table: Tensor

    def __init__(self, terms: Tensor, table: Tensor, outputs: int, fused: bool = True) -> None:
        super().__init__()
        self.outputs, self.fused = outputs, fused
        self.register_buffer("terms", terms)
        self.register_buffer("table", table)

    @torch.jit.unused
    def frozen(self) -> "TabulatedContraction":
        """Return this."""
        return self

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        """Return [N, outputs * C] from features [N, (l_max + 1)^2 * C] and species [N]."""
        if self.fused:
            return torch.ops.equistride.symmetric_contraction(x, self.table, species, self.terms, self.outputs)
        return symmetric_contraction_reference(x, self.table, species, self.terms, self.outputs)


class SymmetricContraction(nn.Module):
    """The product basis with trainable weights, a set an element.

    Parameters
    ----------
    l_max
        Largest degree of the features; they have every degree up to it, with natural parity.
    degrees
        Degrees of the outputs, natural parity.
    channels
        C.
    elements
        S.
    correlation
        The largest number of factors, 1 to 4.
    bases
        For each (degree, number of factors) the coupled products, [paths, 2 degree + 1] a monomial; without, all of them.
    fused
        Use the native operator, or the plain torch version.

    Attributes
    ----------
    weight [S, paths, C]
        Output after output, and in each the numbers of factors in their order.
    """

    terms: Tensor
    coefficients: Tensor

    def __init__(
        self,
        l_max: int,
        degrees: Sequence[int],
        channels: int,
        elements: int,
        correlation: int,
        bases: Bases | None = None,
        *,
        fused: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= correlation <= MAX_FACTORS:
            raise EquistrideError(
                "a product basis takes one to four factors",
                expected=f"a correlation between 1 and {MAX_FACTORS}",
                found=correlation,
            )
        self.fused = fused
        self.outputs = sum(2 * degree + 1 for degree in degrees)
        self.paths_of: dict[tuple[int, int], int] = {}  # by degree and number of factors
        terms: list[list[int]] = []
        coefficients: list[tuple[int, Tensor]] = []  # first path, and its coefficients
        paths = row = 0
        for degree in degrees:
            made = {
                factors: bases[degree, factors] if bases is not None else coupled_basis(l_max, degree, factors)
                for factors in range(1, correlation + 1)
            }
            firsts = {}
            for factors, basis in made.items():
                firsts[factors] = paths
                self.paths_of[degree, factors] = next((c.size(0) for c in basis.values()), 0)
                paths += self.paths_of[degree, factors]
            for m in range(2 * degree + 1):
                for factors, basis in made.items():
                    for monomial, path in sorted(basis.items()):
                        if path[:, m].abs().max() > SMALL:
                            padded = [*monomial, *[-1] * (MAX_FACTORS - factors)]
                            terms.append([row, len(terms), *padded])
                            coefficients.append((firsts[factors], path[:, m]))
                row += 1
        matrix = torch.zeros(len(terms), paths, dtype=torch.float64)
        for t, (first, path) in enumerate(coefficients):
            matrix[t, first : first + path.size(0)] = path
        self.register_buffer("terms", torch.tensor(terms, dtype=torch.int32).view(-1, 2 + MAX_FACTORS))
        self.register_buffer("coefficients", matrix)
        self.weight = nn.Parameter(torch.randn(elements, paths, channels) / max(paths, 1))

    def forward(self, x: Tensor, species: Tensor) -> Tensor:
        """Return [N, outputs * C] from features [N, (l_max + 1)^2 * C] and species [N]."""
        table = torch.matmul(self.coefficients.to(self.weight.dtype), self.weight)
        if self.fused:
            return torch.ops.equistride.symmetric_contraction(x, table, species, self.terms, self.outputs)
        return symmetric_contraction_reference(x, table, species, self.terms, self.outputs)

    def frozen(self) -> TabulatedContraction:
        """Return the same with its weights multiplied into one table."""
        table = torch.matmul(self.coefficients.double(), self.weight.detach().double())
        return TabulatedContraction(self.terms, table.to(self.weight.dtype), self.outputs, self.fused)
