"""``equistride::exchange``: nothing happens to features and gradients where no engine lends its communication."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from equistride.nn.exchange import exchange, without_exchange


def test_changes_nothing() -> None:
    x = torch.randn(5, 9, 4, dtype=torch.float64, requires_grad=True)
    assert torch.equal(torch.ops.equistride.exchange(x), x)
    assert torch.autograd.gradcheck(torch.ops.equistride.exchange, x)
    assert torch.autograd.gradgradcheck(torch.ops.equistride.exchange, x)
    torch.library.opcheck(torch.ops.equistride.exchange, (x,))
    assert exchange(x) is x


def test_is_in_every_export_and_can_be_taken_out(random_artifact64: Path) -> None:
    model = torch.jit.load(str(random_artifact64))
    assert "equistride::exchange" in torch.jit.export_opnames(model)
    frame = (torch.randn(4, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1]), torch.zeros(3, 3, dtype=torch.float64),
             torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]), torch.zeros(4, 3, dtype=torch.int32))  # fmt: skip
    before: Tensor = torch.jit.load(str(random_artifact64))(*frame)[0]
    without_exchange(model)
    assert "equistride::exchange" not in torch.jit.export_opnames(model)
    assert torch.equal(model(*frame)[0], before)
