"""How a budget becomes numbers, that they are fixed once, and settings that make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ase.build import bulk, molecule
from ase.io import read

from equistride.distillation import plan
from equistride.distillation.ledger import Ledger
from equistride.distillation.network import DEPTH, PARTS, cutoff_for
from equistride.distillation.settings import Settings, seconds
from equistride.distillation.walks import TEST_WALKS, walk_steps, walks_of
from equistride.errors import EquistrideError


def test_the_budget_is_shared_out() -> None:
    """All stages together take the budget, less what is kept in reserve, to a per cent."""
    settings = Settings(budget_s=1200.0)
    walks = plan.walks(settings, 1e-3, 30, 1.0)
    assert (walks["walks"] + TEST_WALKS) * walk_steps(30, 1.0) * 1e-3 == pytest.approx(plan.DATA * 1200, rel=0.05)
    work = plan.work(settings, 200.0, 1e-3, 30, 0.1, 0.01)
    correcting = work.states * (2 * 8 * 30 * 1e-3 + (4 + 12) * 0.01)
    whole = 200.0 + work.training_s + work.comparison_s + work.strides_s + correcting
    assert whole == pytest.approx((1 - plan.RESERVE) * 1200, rel=0.01)
    assert work.steps == pytest.approx(work.training_s / (0.1 * DEPTH), rel=0.01)
    slower = plan.work(settings, 200.0, 1e-3, 30, 0.2, 0.02)
    assert slower.steps < work.steps
    assert slower.strides < work.strides


def test_the_depth_of_the_training() -> None:
    """Half of the steps are 1.15 strides deep, a quarter 2.1 and the last 2.5."""
    assert sum(part.share for part in PARTS) == pytest.approx(1.0)
    assert sum(part.share * part.depth for part in PARTS) == pytest.approx(DEPTH)
    assert pytest.approx(0.5 * 1.15 + 0.25 * 2.1 + 0.25 * 2.5) == DEPTH


def test_a_liquid_is_seen_further() -> None:
    """Water has 70 atoms within 5.5 A; silicon 16 within 4, a molecule of nine atoms all eight within 4.5."""
    water = read(Path(__file__).parents[2] / "examples" / "water" / "water64.extxyz")
    assert cutoff_for(water, liquid=True) == 5.5
    assert cutoff_for(water) == 3.5
    assert cutoff_for(bulk("Si"), liquid=True) == 6.0
    assert cutoff_for(bulk("Si")) == 4.0
    assert cutoff_for(molecule("CH3CH2OH"), liquid=True) == cutoff_for(molecule("CH3CH2OH"))


def test_what_is_told_is_not_fitted() -> None:
    settings = Settings(walks=9, steps=77, frames=20, strides=30, budget_s=100.0)
    assert plan.walks(settings, 1.0, 30, 1.0)["walks"] == 9
    work = plan.work(settings, 50.0, 1.0, 30, 1.0, 1.0)
    assert (work.steps, work.frames, work.strides) == (77, 20, 30)


def test_a_budget_that_is_too_short() -> None:
    """A teacher of a second a step and 20 minutes: refused with the time that would do."""
    with pytest.raises(EquistrideError, match="time step takes 1 s here; expected 952 min or more; found 20 min"):
        plan.walks(Settings(budget_s=1200.0), 1.0, 30, 1.0)


def test_walks_have_all_temperatures_and_some_strains() -> None:
    walks = walks_of(Settings(temperatures=(300.0, 100.0, 500.0), strain=0.02), 12)
    assert [w.temperature for w in walks[:6]] == [300, 100, 300, 500, 300, 100]
    assert sum(w.strain > 0 for w in walks) == 3
    held = [w for w in walks if w.test]
    assert len(held) == TEST_WALKS
    assert {(w.temperature, w.strain) for w in held} == {(300.0, 0.0)}
    assert len({w.number for w in walks}) == len(walks)


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> dict[str, Any]:
        calls.append(1)
        return {"numbers": (1, 2), "x": 0.1}

    for _ in range(2):
        assert Ledger(tmp_path / "plan.json").once("a", make) == {"numbers": [1, 2], "x": 0.1}
    assert len(calls) == 1
    with pytest.raises(RuntimeError):
        Ledger(tmp_path / "plan.json").once("b", lambda: (_ for _ in ()).throw(RuntimeError()))
    assert set(json.loads((tmp_path / "plan.json").read_text())) == {"a", "seconds"}
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(EquistrideError, match="cannot be read as the plan of a distillation"):
        Ledger(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"student": "mace"}, "the student is not known; expected trajcast or esen or nequip"),
        ({"relax": "cell"}, "the relax is not known"),
        ({"temperatures": ()}, "needs a temperature"),
        ({"temperatures": (300.0, -1.0)}, "the temperature must be above 0"),
        ({"stride_fs": float("nan")}, "the stride must be above 0"),
        ({"strain": 0.5}, "the strain must be small; expected 0 to 0.1"),
        ({"walks": 3}, "the number of walks is too small; expected 4 or more"),
        ({"steps": 0}, "the number of steps is too small"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(EquistrideError, match=said):
        Settings(**settings)


def test_budgets_in_words() -> None:
    assert [seconds(text) for text in ("90s", "20m", "1.5 h", "1d")] == [90, 1200, 5400, 86400]
    for text in ("2", "h", "-1h", "1e3h", "0m", "5 weeks"):
        with pytest.raises(EquistrideError, match="the budget is not valid; expected a number with s, m, h or d"):
            seconds(text)
