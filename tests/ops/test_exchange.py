"""``equistride::exchange`` and ``own``: nothing happens to features and gradients where no engine lends its communication."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch import library as operators

from equistride.nn.exchange import exchange, head_rows, local_rows, pad_to_all, total, without_exchange

OPERATORS = {"exchange": exchange, "own": local_rows}


@pytest.mark.parametrize("name", OPERATORS)
def test_changes_nothing(name: str) -> None:
    x = torch.randn(5, 9, 4, dtype=torch.float64, requires_grad=True)
    operator = getattr(torch.ops.equistride, name)
    assert torch.equal(operator(x), x)
    assert torch.autograd.gradcheck(operator, x)
    assert torch.autograd.gradgradcheck(operator, x)
    operators.opcheck(operator.default, (x,))
    assert OPERATORS[name](x) is x


def test_total_is_a_sum_in_double_precision() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    operator = torch.ops.equistride.total
    assert torch.autograd.gradcheck(operator, x)
    assert torch.autograd.gradgradcheck(operator, x)
    operators.opcheck(operator.default, (x,))
    single = x.detach().float().requires_grad_()
    found = operator(single)
    assert torch.equal(found, total(single))
    assert torch.equal(found, single.double().sum(0))
    (gradient,) = torch.autograd.grad(found.square().sum(), single)
    torch.testing.assert_close(gradient, (2 * found).float().expand(5, 3), rtol=0, atol=0)
    assert operator(x[:0]).tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match=r"wrong shape; expected \[N, k\]; found \[5\]"):
        operator(x[:, 0])


def test_rows_of_own_atoms_and_of_all() -> None:
    """What the layers do between an exchange, which gives rows of five atoms, and the features of three own ones."""
    x, mine = torch.randn(5, 2, requires_grad=True), torch.zeros(3, 2)
    assert torch.equal(head_rows(x, mine), x[:3])
    assert head_rows(x, x) is x
    padded = pad_to_all(head_rows(x, mine).sum(1), x)
    assert torch.equal(padded, torch.cat([x[:3].sum(1), torch.zeros(2)]))
    (gradient,) = torch.autograd.grad(padded.sum(), x)
    assert torch.equal(gradient, torch.tensor([[1.0], [1], [1], [0], [0]]).expand(5, 2))


def test_total_can_be_taken_out() -> None:
    class Sums(torch.nn.Module):
        def forward(self, rows: Tensor) -> Tensor:
            return total(rows)

    script, rows = torch.jit.script(Sums()), torch.randn(4, 2)
    before = script(rows)
    without_exchange(script)
    assert torch.jit.export_opnames(script) == ["aten::sum.dim_IntList"]
    assert torch.equal(script(rows), before)


def test_is_in_every_export_and_can_be_taken_out(random_artifact64: Path) -> None:
    model = torch.jit.load(str(random_artifact64))
    names = {f"equistride::{name}" for name in OPERATORS}
    assert names <= set(torch.jit.export_opnames(model))
    frame = (torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1]), torch.zeros(3, 3, dtype=torch.float64),
             torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), torch.zeros(4, 3, dtype=torch.int32))  # fmt: skip
    before: Tensor = torch.jit.load(str(random_artifact64))(*frame)[0]
    without_exchange(model)
    assert not names & set(torch.jit.export_opnames(model))
    assert torch.equal(model(*frame)[0], before)
