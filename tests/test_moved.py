"""Modules under the names that they had before the rooms were parted."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings

import pytest

from equistride.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_gives_the_same_things_and_a_warning(old: str) -> None:
    name = f"equistride.{old}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        importlib.import_module(name.rpartition(".")[0])  # the package warns of itself
    sys.modules.pop(name, None)
    with pytest.warns(DeprecationWarning, match=f"{name} is now equistride.{MOVED[old][0]}"):
        module = importlib.import_module(name)
    for new in MOVED[old]:
        there = importlib.import_module(f"equistride.{new}")
        public = [key for key in vars(there) if not key.startswith("_")]
        assert public
        assert all(hasattr(module, key) for key in public)
    assert not hasattr(module, "never_there")


def test_the_warning_names_the_line_that_imports() -> None:
    """It is shown by default where the script that a user runs has the old name."""
    code = (
        "from equistride.analysis import Trajectory, energy_drift\n"
        "from equistride.analysis.drift import energy_drift as old\n"
        "from equistride.trajectories import Trajectory as new\n"
        "assert Trajectory is new and old is energy_drift\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "<string>:1: DeprecationWarning: equistride.analysis is now" in done.stderr
    assert "<string>:2: DeprecationWarning: equistride.analysis.drift is now" in done.stderr


def test_a_module_that_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("equistride.artifact.never_there")
