"""SOAP: what it must be equal to, where it is worth its name, and that it goes on from a checkpoint."""

import copy

import pytest
import torch
from torch import Tensor, nn

from equistride.training.soap import WIDEST, Soap


def gradients(count: int, *shape: int, seed: int = 0) -> Tensor:
    """Gradients that vary most along few directions, as those of networks do."""
    draws = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, *shape, generator=draws, dtype=torch.float64)
    scale = torch.logspace(0, -2, shape[-1], dtype=torch.float64)
    return noise * scale + 0.1 * torch.randn(*shape, generator=draws, dtype=torch.float64)


def after(optimiser: torch.optim.Optimizer, parameter: nn.Parameter, given: Tensor) -> Tensor:
    for gradient in given:
        parameter.grad = gradient.clone()
        optimiser.step()
    return parameter.detach().clone()


@pytest.mark.parametrize("shape", [(7,), (1, 9), (5, 1), (2, 3, 4)])
def test_what_is_no_matrix_is_left_to_adam(shape: tuple[int, ...]) -> None:
    """Steps are those of ``torch.optim.AdamW`` but for the first, which only looks."""
    given = gradients(20, *shape)
    mine, theirs = (nn.Parameter(torch.ones(shape, dtype=torch.float64)) for _ in range(2))
    adam = torch.optim.AdamW([theirs], lr=0.0, betas=(0.9, 0.95), weight_decay=0.0)
    after(adam, theirs, given[:1])
    adam.param_groups[0]["lr"] = 0.01
    expected = after(adam, theirs, given[1:])
    found = after(Soap([mine], 0.01, (0.9, 0.95)), mine, given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_a_long_side_keeps_its_own_directions() -> None:
    """A side that is too long has no basis, the other has one."""
    parameter = nn.Parameter(torch.zeros(3, WIDEST + 1))
    optimiser = Soap([parameter], 0.01)
    parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    (known,) = optimiser.state[parameter]["matrices"]
    assert known["left_basis"].shape == (3, 3)
    assert "right_basis" not in known


def test_it_does_not_see_how_the_weights_are_turned() -> None:
    """Gradients U g V give steps U s V: bases follow the gradients. AdamW's steps differ by a tenth of their size and more."""
    draws = torch.Generator().manual_seed(3)
    left, right = (torch.linalg.qr(torch.randn(6, 6, generator=draws, dtype=torch.float64))[0] for _ in range(2))
    given = gradients(40, 6, 6, seed=1)

    def steps(kind: type[Soap] | type[torch.optim.AdamW], turned: bool) -> Tensor:
        parameter = nn.Parameter(torch.zeros(6, 6, dtype=torch.float64))
        found = after(
            kind([parameter], lr=0.01, weight_decay=0.0), parameter, left @ given @ right if turned else given
        )
        return left.T @ found @ right.T if turned else found

    expected = steps(Soap, False)
    torch.testing.assert_close(steps(Soap, True), expected, rtol=0, atol=1e-7 * float(expected.abs().max()))
    adam = steps(torch.optim.AdamW, False)
    assert (steps(torch.optim.AdamW, True) - adam).norm() > 0.1 * adam.norm()


def test_matrices_in_one_parameter_are_matrices() -> None:
    """Two matrices in one parameter move as two parameters do."""
    one, two = gradients(15, 4, 6), gradients(15, 5, 3, seed=2)
    joined = nn.Parameter(torch.zeros(39, dtype=torch.float64))
    found = after(
        Soap([joined], 0.01, matrices={joined: [(4, 6), (5, 3)]}),
        joined,
        torch.cat([one.flatten(1), two.flatten(1)], 1),
    )
    apart = []
    for given in (one, two):
        parameter = nn.Parameter(torch.zeros(given.shape[1:], dtype=torch.float64))
        apart.append(after(Soap([parameter], 0.01), parameter, given).flatten())
    torch.testing.assert_close(found, torch.cat(apart), rtol=0, atol=0)


def test_it_learns_what_is_badly_conditioned() -> None:
    """A linear map of inputs along turned axes of very different lengths: a hundredth of AdamW's error after the same steps."""

    def error(kind: type[Soap] | type[torch.optim.AdamW], rate: float) -> float:
        draws = torch.Generator().manual_seed(5)
        turn = torch.linalg.qr(torch.randn(16, 16, generator=draws, dtype=torch.float64))[0]
        inputs = torch.randn(400, 16, generator=draws, dtype=torch.float64) * torch.logspace(0, -2, 16) @ turn
        target = inputs @ torch.randn(16, 8, generator=draws, dtype=torch.float64)
        weight = nn.Parameter(torch.zeros(16, 8, dtype=torch.float64))
        optimiser = kind([weight], lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 400)
        for _ in range(400):
            optimiser.zero_grad()
            loss = (inputs @ weight - target).square().mean()
            loss.backward()
            optimiser.step()
            schedule.step()
        return float(loss.detach())

    best = min(error(torch.optim.AdamW, rate) for rate in (0.01, 0.03, 0.1, 0.3))
    assert min(error(Soap, rate) for rate in (0.03, 0.1)) < 0.01 * best


def test_a_state_goes_on() -> None:
    """From a saved state the steps are the same bits."""
    given = gradients(24, 6, 8).float()
    whole = nn.Parameter(torch.zeros(6, 8))
    expected = after(Soap([whole], 0.01), whole, given)
    first = nn.Parameter(torch.zeros(6, 8))
    optimiser = Soap([first], 0.01)
    after(optimiser, first, given[:12])
    later = nn.Parameter(first.detach().clone())
    resumed = Soap([later], 0.01)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    assert torch.equal(after(resumed, later, given[12:]), expected)
