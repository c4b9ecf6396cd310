"""MACE's product basis: the native operator, its gradients, its CUDA kernels, and the bases it is made of."""

from __future__ import annotations

import functools

import pytest
import torch
from e3nn.o3 import Irreps, rand_matrix, wigner_3j
from emulation import between_nan
from torch import Tensor
from torch import library as operators

from equistride.errors import EquistrideError
from equistride.nn.symmetric_contraction import (
    SymmetricContraction,
    coupled_basis,
    symmetric_contraction_reference,
    symmetrised,
)

CPU = torch.ops.equistride
EMULATES = ("contraction",)
CASES = {  # largest degree, degrees of the output, channels, correlation
    "MP-0 medium": (3, (0, 1), 19, 3),
    "four factors": (2, (0, 1, 2), 5, 4),
    "degree 3": (3, (3,), 16, 2),
    "one factor": (4, (0, 1, 2, 3), 33, 1),
}
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14}  # of the largest: sums of some 100 terms


@functools.cache
def terms_of(name: str) -> tuple[Tensor, int]:
    l_max, degrees, channels, correlation = CASES[name]
    basis = SymmetricContraction(l_max, degrees, channels, 3, correlation)
    return basis.terms, basis.outputs


class Case:
    """Features, a table of three elements, and the terms of a product basis."""

    def __init__(self, name: str, dtype: torch.dtype, atoms: int = 11) -> None:
        l_max, _, channels, _ = CASES[name]
        generator = torch.Generator().manual_seed(3)
        self.terms, self.outputs = terms_of(name)
        rows = self.terms.size(0)

        def draw(*shape: int) -> Tensor:
            return between_nan(torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype))

        self.x, self.table = draw(atoms, (l_max + 1) ** 2 * channels), draw(3, rows, channels)
        self.species = torch.randint(0, 3, (atoms,), generator=generator)
        self.grad = draw(atoms, self.outputs * channels)

    def everything(self, ops: torch._ops._OpNamespace) -> list[Tensor]:
        at = (self.x, self.table, self.species, self.terms)
        return [
            ops.symmetric_contraction(*at, self.outputs),
            *ops.symmetric_contraction_backward(self.grad, *at, [True, True]),
        ]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert theirs.abs().max() > 0
        assert (ours.double() - theirs.double()).abs().max() < tolerance * theirs.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_equals_plain_torch(name: str, dtype: torch.dtype, simd: str) -> None:
    case = Case(name, dtype)
    x, table = case.x.double().requires_grad_(), case.table.double().requires_grad_()
    expected = symmetric_contraction_reference(x, table, case.species, case.terms, case.outputs)
    gradients = torch.autograd.grad(expected, [x, table], case.grad.double())
    assert_close(case.everything(CPU), [expected.detach(), *gradients], TOLERANCE[dtype])


def test_sums_do_not_depend_on_threads() -> None:
    case = Case("MP-0 medium", torch.float32, atoms=5000)  # work for two
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(case.everything(CPU))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_cuda_kernels_equal_the_cpu(name: str, dtype: torch.dtype, emulated: torch._ops._OpNamespace) -> None:
    """And do not depend on the order of threads and blocks: bit for bit."""
    case = Case(name, dtype, atoms=5)
    emulated.set_order(0)
    found = case.everything(emulated)
    assert_close(found, case.everything(CPU), TOLERANCE[dtype])
    emulated.set_order(7)
    assert all(torch.equal(a, b) for a, b in zip(found, case.everything(emulated), strict=True))


def test_cuda_kernels_say_nan_where_the_cpu_refuses(emulated: torch._ops._OpNamespace) -> None:
    case = Case("one factor", torch.float64, atoms=3)
    case.species[1] = 3
    with pytest.raises(IndexError, match="species must be below 3; found 3 at atom 1"):
        case.everything(CPU)
    assert all(t.isnan().all() for t in case.everything(emulated))
    case.species[1] = 0
    case.terms = case.terms.clone()
    case.terms[2, 2] = 25
    with pytest.raises(IndexError, match="one to four of x below 25"):
        case.everything(CPU)
    assert all(t.isnan().all() for t in case.everything(emulated))


def test_first_and_second_gradients() -> None:
    basis = SymmetricContraction(1, (0, 1), 2, 2, 4)
    species = torch.tensor([0, 1, 0])
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    table = torch.randn(2, basis.terms.size(0), 2, dtype=torch.float64, requires_grad=True)

    def run(x: Tensor, table: Tensor) -> Tensor:
        return CPU.symmetric_contraction(x, table, species, basis.terms, basis.outputs)

    assert torch.autograd.gradcheck(run, (x, table))
    assert torch.autograd.gradgradcheck(run, (x, table))
    operators.opcheck(CPU.symmetric_contraction.default, (x, table, species, basis.terms, basis.outputs))


@pytest.mark.parametrize("name", CASES)
def test_turns_with_its_features(name: str, double_by_default: None) -> None:
    l_max, degrees, channels, correlation = CASES[name]
    basis = SymmetricContraction(l_max, degrees, channels, 2, correlation).double()
    species = torch.tensor([0, 1, 1])
    x = torch.randn(3, (l_max + 1) ** 2, channels, dtype=torch.float64)
    rotation = -rand_matrix(dtype=torch.float64)  # with an inversion

    def turn(of: Tensor, all_degrees: tuple[int, ...]) -> Tensor:
        irreps = [Irreps([(1, (degree, (-1) ** degree))]) for degree in all_degrees]
        matrix = torch.block_diag(*(i.D_from_matrix(rotation) for i in irreps))
        return torch.einsum("ij,njc->nic", matrix, of)

    with torch.no_grad():
        out = basis(x.flatten(1), species).view(3, -1, channels)
        turned = basis(turn(x, tuple(range(l_max + 1))).flatten(1), species).view(3, -1, channels)
    assert out.abs().max() > 1e-3
    # angles near a pole lose digits of the matrix
    assert (turned - turn(out, degrees)).abs().max() < 1e-10 * out.abs().max()


def test_bases_are_complete() -> None:
    """Published counts: 16, 77 monomials of a scalar for l_max 3 (and 8 independent cubic ones); 35 and 278 of a vector."""
    cubic = coupled_basis(3, 0, 3)
    assert (len(coupled_basis(3, 0, 2)), len(cubic)) == (16, 77)
    assert next(iter(cubic.values())).size(0) == 8
    assert sum(int((c.abs().amax(0) > 1e-10).sum()) for c in coupled_basis(3, 1, 2).values()) == 35
    assert sum(int((c.abs().amax(0) > 1e-10).sum()) for c in coupled_basis(3, 1, 3).values()) == 278


def test_symmetrised_products_are_those_of_all_orders() -> None:
    """U of two coupled vectors: (a b + b a) of different rows fall together."""
    u = wigner_3j(1, 1, 2, dtype=torch.float64).permute(2, 0, 1)[..., None]
    basis = symmetrised(u)
    a = torch.randn(3, dtype=torch.float64)
    found = sum(c[0] * a[m[0]] * a[m[1]] for m, c in basis.items())
    assert torch.allclose(found, torch.einsum("mij,i,j->m", u[..., 0], a, a), atol=1e-15)
    assert set(basis) <= {(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)}


def test_frozen_tables_give_the_same() -> None:
    basis = SymmetricContraction(2, (0, 1), 7, 2, 3)
    x, species = torch.randn(4, 63), torch.tensor([1, 0, 0, 1])
    frozen = torch.jit.script(basis.frozen())
    assert torch.allclose(frozen(x, species), basis(x, species), rtol=1e-5, atol=1e-6)
    plain = SymmetricContraction(2, (0, 1), 7, 2, 3, fused=False)
    plain.load_state_dict(basis.state_dict())
    assert torch.allclose(plain(x, species), basis(x, species), rtol=1e-5, atol=1e-6)


def test_arguments_are_checked() -> None:
    case = Case("one factor", torch.float64)
    at = (case.x, case.table, case.species, case.terms)
    with pytest.raises(TypeError, match="table must have the type of x"):
        CPU.symmetric_contraction(at[0].float(), *at[1:], case.outputs)
    with pytest.raises(ValueError, match="one index an atom"):
        CPU.symmetric_contraction(at[0], at[1], at[2][1:], at[3], case.outputs)
    with pytest.raises(IndexError, match="a row of the output below 1"):
        CPU.symmetric_contraction(*at, 1)
    with pytest.raises(EquistrideError, match="one to four factors"):
        SymmetricContraction(2, (0,), 4, 1, 5)
